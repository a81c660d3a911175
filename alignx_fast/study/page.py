"""STUDY/comparison.{json,csv,md,tex} and STUDY/study.html: one page without scripts that refers to nothing outside itself."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import yaml
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from alignx_fast.comparison.compare import Comparison, Row, compare
from alignx_fast.comparison.write import by_group, label, shown_cell, shown_difference, write_tables
from alignx_fast.config import BUILTIN_TINY
from alignx_fast.files import write_text
from alignx_fast.report.formats import decimal, or_dash, three_decimals, whole
from alignx_fast.report.notes import TINY_MODEL
from alignx_fast.stages import Stage
from alignx_fast.study.figures import Figure, gain_figures, layer_figures, learning_figures
from alignx_fast.study.layout import Layout
from alignx_fast.study.results import Results, StageCost, contestants, mean_cost, results_of, shared_seeds
from alignx_fast.study.spec import Study
from alignx_fast.training.folder import dotted

log = logging.getLogger(__name__)

STAGES: tuple[Stage, ...] = ("align", "instruct")
GAINS = ("spBLEU", "chrF++")
"""Scores whose differences are drawn by direction, where the comparison has them."""
SUMMARY = (
    "chrF++",
    "spBLEU",
    "BLEU",
    "COMET",
    "off-target rate",
    "top-1 at the align layer",
    "top-1 at the best layer",
    "bits per character",
    "mean of the tasks",
)
"""Rows of the comparison that the first table shows, where there are such; all others follow below."""
FEW_SEEDS = 3


@dataclass(frozen=True)
class SummaryRow:
    """One variant: each metric with its difference from the baseline."""

    name: str
    seeds: int
    cells: list[tuple[str, str, bool]]
    """(value, difference, whether that is clear)."""


@dataclass(frozen=True)
class CostRow:
    """One variant, written out."""

    name: str
    cells: list[str]


def write_results(study: Study) -> Path | None:
    """Compare what has scores and write tables and page; None where no two variants can be compared.

    Raises:
        UserError: the file system refuses.
    """
    results = results_of(study)
    trained = [each for each in results if each.variant.trained]
    if len(results) < 2 or (trained and not shared_seeds(results)):
        log.warning("There is nothing to compare yet: fewer than two variants have scores with the same seed.")
        return None
    baseline = study.baseline if any(each.variant.name == study.baseline for each in results) else None
    comparison = compare(contestants(results), baseline)
    comparison = comparison.model_copy(update={"notes": (*comparison.notes, *_notes(study, results))})
    write_tables(comparison, study.output)
    page = study.output / "study.html"
    write_text(page, render(study, results, comparison))
    return page


def render(study: Study, results: Sequence[Results], comparison: Comparison) -> str:
    """The page as HTML."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("alignx_fast", "study"), PackageLoader("alignx_fast", "report")]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    averages = sorted((row for row in comparison.rows if row.name in SUMMARY), key=lambda row: SUMMARY.index(row.name))
    directions = sorted(set.intersection(*(set(e.translation) for each in results for e in each.evaluations.values())))
    gains = {metric: _markup(gain_figures(comparison, metric, directions)) for metric in GAINS}
    return environment.get_template("study.html.j2").render(
        study=study,
        model=BUILTIN_TINY if _is_tiny(study) else study.shared.model.path,
        languages=study.evaluation.languages or [],
        comparison=comparison,
        headings=[label(row) for row in averages],
        summary=[_summary_row(comparison, averages, name) for name in comparison.models],
        groups=[(group, [_full_row(comparison, row) for row in rows]) for group, rows in by_group(comparison)],
        gains={metric: panels for metric, panels in gains.items() if panels},
        layers=[_legible(figure) for figure in layer_figures(results, study.baseline) if figure.panels],
        learning=[_legible(figure) for figure in learning_figures(results, study.baseline) if figure.panels],
        costs=[_cost_row(each) for each in results],
        variants=[(variant.name, _changes(variant.trained, variant.changes)) for variant in study.variants],
        settings=yaml.safe_dump(study.as_tree(), sort_keys=False, allow_unicode=True),
    )


def _summary_row(comparison: Comparison, rows: Sequence[Row], model: str) -> SummaryRow:
    cells = []
    for row in rows:
        difference = row.differences.get(model)
        change = "" if difference is None else shown_difference(difference, row)
        cells.append((shown_cell(row.cells[model], row), change, difference is not None and difference.is_clear))
    return SummaryRow(model, comparison.rows[0].cells[model].seeds if comparison.rows else 0, cells)


def _full_row(comparison: Comparison, row: Row) -> list[str]:
    return [label(row), *(shown_cell(row.cells[model], row) for model in comparison.models)]


def _cost_row(results: Results) -> CostRow:
    def by_stage(value: Callable[[StageCost], float | None]) -> list[float | None]:
        stages = [mean_cost(results, stage, value) for stage in STAGES]
        return [*stages, _sum(stages)]

    peaks = [cost.peak_gib for costs in results.costs.values() for cost in costs.values()]
    scoring = [e.seconds / 60 for e in results.evaluations.values() if e.seconds is not None]
    joules = _sum([mean_cost(results, stage, lambda cost: cost.joules) for stage in STAGES])
    return CostRow(
        results.variant.name,
        [
            *(or_dash(value, decimal) for value in by_stage(lambda cost: cost.seconds / 60)),
            *(or_dash(value, whole) for value in by_stage(lambda cost: cost.tokens / 1e3)),
            or_dash(by_stage(lambda cost: cost.flops / 1e12)[-1], decimal),
            or_dash(None if joules is None else joules / 3.6e6, three_decimals),
            or_dash(max(peaks, default=None), decimal),
            or_dash(fmean(scoring) if scoring else None, decimal),
        ],
    )


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _notes(study: Study, results: Sequence[Results]) -> list[str]:
    """What a reader must know before believing the numbers."""
    seeds, names = shared_seeds(results), [each.variant.name for each in results]
    notes = []
    if 0 < len(seeds) < FEW_SEEDS:
        notes.append(
            f"Only {len(seeds)} seed{'s' * (len(seeds) > 1)}: intervals over seeds are missing or very wide. Give three or more."
        )
    if left_out := [variant.name for variant in study.variants if variant.name not in names]:
        notes.append(f"Without scores, and left out: {', '.join(left_out)}.")
    if dropped := [seed for seed in study.seeds if seed not in seeds and seeds]:
        notes.append(f"Not every variant has scores with seed {', '.join(map(str, dropped))}: left out for all of them.")
    layers = {e.align_layer for each in results for e in each.evaluations.values()}
    if len(layers) > 1:
        notes.append("Retrieval at the align layer is taken at each variant's own; the curves show all layers.")
    if _is_tiny(study):
        notes.append(TINY_MODEL)
    every = [note for each in results for e in each.evaluations.values() for note in e.notes]
    return [*notes, *dict.fromkeys(every)]


def _is_tiny(study: Study) -> bool:
    return study.shared.model.path == str(Layout(study.output).base.resolve())


def _changes(trained: bool, changes: dict[str, object]) -> str:
    flat = ", ".join(f"{key}: {value}" for key, value in dotted(changes).items())
    return flat or ("the shared settings" if trained else "not trained")


def _markup(panels: list[str]) -> list[Markup]:
    """Names of variants and languages are the only text in them that is not ours, and hold no markup."""
    return [Markup(panel) for panel in panels]


def _legible(figure: Figure) -> tuple[list[Markup], list[tuple[str, str]]]:
    return _markup(figure.panels), figure.legend
