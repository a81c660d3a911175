"""Headline scores of evaluations, side by side, as a table for the terminal."""

from collections.abc import Callable, Iterable
from pathlib import Path

from rich.table import Table

from alignx_fast.files import read_json
from alignx_fast.report.read import MOMENTS


def evaluations(run: Path) -> dict[str, dict]:
    """The evaluations that a run folder holds, in the order of the run."""
    files = {when: run / "evaluation" / f"{when}.json" for when in MOMENTS}
    return {when: read_json(file) for when, file in files.items() if file.exists()}


def score_table(scores: dict[str, dict]) -> Table:
    """One column per evaluation: averages over languages and directions."""
    table = Table("", *(MOMENTS.get(when, when) for when in scores))

    def row(name: str, value: Callable[[dict], float | None], form: str) -> None:
        values = [value(s) for s in scores.values()]
        table.add_row(name, *("-" if v is None else format(v, form) for v in values))

    row("retrieval top-1", lambda s: s["retrieval"]["average"], ".1%")
    row("  chance", lambda s: s["retrieval"]["chance"], ".2%")
    row("BLEU", lambda s: _mean(d["bleu"] for d in s["translation"].values()), ".1f")
    row("chrF++", lambda s: _mean(d["chrf++"] for d in s["translation"].values()), ".1f")
    row("bits per character", lambda s: _mean(p["bits_per_character"] for p in s["perplexity"].values()), ".2f")
    if any(s.get("understanding") for s in scores.values()):
        row("understanding", lambda s: _mean(task["score"] for task in s.get("understanding", {}).values()), ".1%")
    return table


def _mean(values: Iterable[float | None]) -> float | None:
    found = [value for value in values if value is not None]
    return sum(found) / len(found) if found else None
