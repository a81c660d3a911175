"""Tables of every score: a row for each direction, language, task or layer, a column for each score and point."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from alignx_fast.evaluation.results import EvaluatedAt, Interval, LayerScores, MonolingualScore
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
    interval: Callable[[Scored], Interval | None] = lambda scored: None

    def cell(self, scored: Scored | None) -> str:
        """The score, with its interval where that is known."""
        if scored is None:
            return or_dash(None, self.show)
        text, interval = or_dash(self.score(scored), self.show), self.interval(scored)
        return text if interval is None else f"{text} [{self.show(interval.low)}, {self.show(interval.high)}]"


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
            "Retrieval, by direction of the search",
            "direction",
            {at: evaluation.retrieval.pairs for at, evaluation in evaluations.items()},
            [
                Column("top-1", lambda pair: pair.top1, percent, lambda pair: pair.top1_interval),
                Column("xsim, errors", lambda pair: pair.xsim, percent, lambda pair: pair.xsim_interval),
                Column("xsim++, errors", lambda pair: pair.xsimpp, percent, lambda pair: pair.xsimpp_interval),
            ],
            "sentences",
            lambda pair: pair.n,
        ),
        table(
            "Translation, by direction",
            "direction",
            {at: evaluation.translation for at, evaluation in evaluations.items()},
            [
                Column("BLEU", lambda scores: scores.bleu, decimal, lambda scores: scores.bleu_interval),
                Column("spBLEU", lambda scores: scores.spbleu, decimal, lambda scores: scores.spbleu_interval),
                Column("chrF++", lambda scores: scores.chrf, decimal, lambda scores: scores.chrf_interval),
                Column("TER", lambda scores: scores.ter, decimal, lambda scores: scores.ter_interval),
                Column("COMET", lambda scores: scores.comet, three_decimals, lambda scores: scores.comet_interval),
                Column("off target", lambda scores: scores.off_target, percent),
                Column("unfinished", lambda scores: scores.unfinished, percent),
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
                Column(
                    "bits per character",
                    lambda language: language.bits_per_character,
                    three_decimals,
                    lambda language: language.bits_per_character_interval,
                ),
            ],
            "tokens",
            lambda language: language.tokens,
        ),
        table(
            "Understanding, by task",
            "task",
            {at: evaluation.understanding for at, evaluation in evaluations.items()},
            [
                Column("score", lambda task: task.score, percent, lambda task: task.interval),
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
        table(
            "MEXA against the pivot, by language",
            "language",
            {at: evaluation.retrieval.mexa for at, evaluation in evaluations.items()},
            [
                Column("mean over the layers", lambda score: score.mean, percent, lambda score: score.mean_interval),
                Column("at the best layer", lambda score: score.max, percent, lambda score: score.max_interval),
            ],
            "sentences",
            lambda score: score.n,
        ),
        table(
            "Languages told apart by a linear probe, by layer",
            "layer",
            {at: {f"{p.layer:02d}": p for p in evaluation.layers.probes} for at, evaluation in evaluations.items()},
            [
                Column("accuracy", lambda probe: probe.accuracy, percent, lambda probe: probe.interval),
                Column("chance", lambda probe: probe.chance, percent),
            ],
            "sentences",
            lambda probe: probe.n,
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
    """A row for each key that any point has, without columns that hold nothing; None where there are no keys."""
    parts = {at: part for at, part in parts.items() if part}
    if not parts:
        return None
    every = [score for part in parts.values() for score in part.values()]
    columns = [column for column in columns if any(column.score(score) is not None for score in every)] or columns[:1]

    def row(key: str) -> list[str]:
        scored = [part.get(key) for part in parts.values()]
        cells = [column.cell(score) for column in columns for score in scored]
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
    LayerColumn("retrieval, languages centred", lambda layers: layers.retrieval_centred, percent),
    LayerColumn("xsim, errors", lambda layers: layers.xsim, percent),
    LayerColumn("MEXA", lambda layers: layers.mexa, percent),
    LayerColumn("same language", lambda layers: layers.same_language, three_decimals),
    LayerColumn("first component", lambda layers: layers.first_component, percent),
)


def layer_table(evaluations: Evaluations) -> ScoreTable | None:
    """A row for each layer: cosines of translations, of unrelated sentences and of one language, CKA, retrieval and its like at every point."""
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
