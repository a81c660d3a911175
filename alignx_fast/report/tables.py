"""Tables of every score: a row for each direction, language, task or layer, a column for each score and point."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from alignx_fast.evaluation.results import EvaluatedAt, LayerScores, MonolingualScore
from alignx_fast.report.formats import decimal, or_dash, percent, three_decimals, whole
from alignx_fast.report.labels import POINT_TITLES
from alignx_fast.report.read import Evaluations

Scored = TypeVar("Scored")


@dataclass(frozen=True)
class Column(Generic[Scored]):
    """One score: its heading, where it is read, and how it is written."""

    heading: str
    score: Callable[[Scored], float | None]
    show: Callable[[float], str]


@dataclass(frozen=True)
class ScoreTable:
    """A table as text; under each of `groups` stands a column for each of `points`."""

    title: str
    row_heading: str
    groups: list[str]
    points: list[str]
    rows: list[list[str]]
    count: str | None = None
    """Heading of the last column: what the scores were counted over."""


MONOLINGUAL: list[Column[MonolingualScore]] = [
    Column("right language", lambda score: score.right_language, percent),
    Column("repeated 4-grams", lambda score: score.repetition, percent),
    Column("chrF", lambda score: score.chrf, decimal),
    Column("without an end", lambda score: score.unfinished, percent),
]


def score_tables(evaluations: Evaluations) -> list[ScoreTable]:
    """All tables that the run has numbers for."""
    tables = [
        table(
            "Retrieval top-1, by direction of the search",
            "direction",
            {at: evaluation.retrieval.pairs for at, evaluation in evaluations.items()},
            [Column("top-1", lambda pair: pair.top1, percent)],
            "sentences",
            lambda pair: pair.n,
        ),
        table(
            "Translation, by direction",
            "direction",
            {at: evaluation.translation for at, evaluation in evaluations.items()},
            [
                Column("BLEU", lambda direction: direction.bleu, decimal),
                Column("chrF++", lambda direction: direction.chrf, decimal),
                Column("off target", lambda direction: direction.off_target, percent),
            ],
            "sentences",
            lambda direction: direction.n,
        ),
        table(
            "Perplexity, by language",
            "language",
            {at: evaluation.perplexity for at, evaluation in evaluations.items()},
            [
                Column("perplexity per token", lambda language: language.perplexity, decimal),
                Column("bits per character", lambda language: language.bits_per_character, three_decimals),
            ],
            "tokens",
            lambda language: language.tokens,
        ),
        table(
            "Understanding, by task",
            "task",
            {at: evaluation.understanding for at, evaluation in evaluations.items()},
            [
                Column("score", lambda task: task.score, percent),
                Column("standard error", lambda task: task.stderr, percent),
            ],
            "examples",
            lambda task: task.n,
        ),
        table(
            "Sentences continued, by language",
            "language",
            {at: evaluation.continuations for at, evaluation in evaluations.items()},
            MONOLINGUAL,
            "texts",
            lambda score: score.n,
        ),
        table(
            "Instructions answered, by language",
            "language",
            {at: evaluation.answers for at, evaluation in evaluations.items()},
            MONOLINGUAL,
            "texts",
            lambda score: score.n,
        ),
        layer_table(evaluations),
    ]
    return [table for table in tables if table is not None]


def table(
    title: str,
    row_heading: str,
    parts: Mapping[EvaluatedAt, Mapping[str, Scored]],
    columns: list[Column[Scored]],
    count: str,
    counted: Callable[[Scored], int | None],
) -> ScoreTable | None:
    """A row for each key that any point has; None where there are no keys."""
    parts = {at: part for at, part in parts.items() if part}
    if not parts:
        return None

    def row(key: str) -> list[str]:
        scored = [part.get(key) for part in parts.values()]
        cells = [or_dash(None if score is None else column.score(score), column.show) for column in columns for score in scored]
        return [key, *cells, or_dash(counted(next(score for score in scored if score is not None)), whole)]

    return ScoreTable(
        title=title,
        row_heading=row_heading,
        groups=[column.heading for column in columns],
        points=[POINT_TITLES[at] for at in parts],
        rows=[row(key) for key in sorted({key for part in parts.values() for key in part})],
        count=count,
    )


@dataclass(frozen=True)
class LayerColumn:
    """One score of the layers."""

    heading: str
    values: Callable[[LayerScores], tuple[float | None, ...]]
    show: Callable[[float], str]


LAYER_COLUMNS = (
    LayerColumn("translations", lambda layers: layers.similarity, three_decimals),
    LayerColumn("unrelated", lambda layers: layers.unrelated, three_decimals),
    LayerColumn("CKA", lambda layers: layers.cka, three_decimals),
    LayerColumn("retrieval", lambda layers: layers.retrieval, percent),
)


def layer_table(evaluations: Evaluations) -> ScoreTable | None:
    """A row for each layer: cosine of translations and of unrelated sentences, CKA and retrieval at every point."""
    parts = {at: evaluation.layers for at, evaluation in evaluations.items() if evaluation.layers.similarity}
    if not parts:
        return None
    columns = [column for column in LAYER_COLUMNS if any(column.values(layers) for layers in parts.values())]

    def cell(column: LayerColumn, layers: LayerScores, layer: int) -> str:
        values = column.values(layers)
        return or_dash(values[layer] if layer < len(values) else None, column.show)

    depth = max(len(layers.similarity) for layers in parts.values())
    return ScoreTable(
        title="Layers",
        row_heading="layer",
        groups=[column.heading for column in columns],
        points=[POINT_TITLES[at] for at in parts],
        rows=[
            [str(layer), *(cell(column, layers, layer) for column in columns for layers in parts.values())]
            for layer in range(depth)
        ],
    )
