"""Headline scores of evaluations, side by side, as a table for the terminal."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from rich.table import Table

from alignx_fast.evaluation.results import RUN_POINTS, EvaluatedAt, Evaluation
from alignx_fast.files import read_json


def run_evaluations(run: Path) -> dict[EvaluatedAt, Evaluation]:
    """The evaluations that a run folder holds, in the order of the run."""
    files = {at: run / "evaluation" / f"{at}.json" for at in RUN_POINTS}
    return {at: Evaluation.from_json(read_json(file)) for at, file in files.items() if file.exists()}


def score_table(evaluations: Mapping[str, Evaluation]) -> Table:
    """One column per evaluation, by its title: averages over languages and directions."""
    table = Table("", *evaluations)

    def row(name: str, score: Callable[[Evaluation], float | None], form: str) -> None:
        values = [score(evaluation) for evaluation in evaluations.values()]
        table.add_row(name, *("-" if value is None else format(value, form) for value in values))

    row("retrieval top-1", lambda evaluation: evaluation.retrieval.average, ".1%")
    row("  chance", lambda evaluation: evaluation.retrieval.chance, ".2%")
    row("BLEU", lambda evaluation: _mean(pair.bleu for pair in evaluation.translation.values()), ".1f")
    row("chrF++", lambda evaluation: _mean(pair.chrf for pair in evaluation.translation.values()), ".1f")
    row(
        "bits per character",
        lambda evaluation: _mean(language.bits_per_character for language in evaluation.perplexity.values()),
        ".2f",
    )
    if any(evaluation.understanding for evaluation in evaluations.values()):
        row("understanding", lambda evaluation: _mean(task.score for task in evaluation.understanding.values()), ".1%")
    return table


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
