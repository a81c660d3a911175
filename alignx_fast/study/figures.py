"""The figures of a study's page: variants by colour, seeds as bands."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from alignx_fast.comparison.compare import Comparison, Row
from alignx_fast.evaluation.results import LayerScores
from alignx_fast.report.figures.layers import complete
from alignx_fast.report.figures.svg import COLOUR, LANGUAGE_COLOURS, draw
from alignx_fast.report.log import Log, series
from alignx_fast.stages import StageName
from alignx_fast.study.results import Results

BASELINE_COLOUR = "ink"
VARIANTS_IN_A_FIGURE = 6
"""Beside the baseline: more lines cannot be told apart."""

Curve = tuple[list[float], list[float]]
"""x and y of one seed."""
LAYER_PANELS: tuple[tuple[str, str, Callable[[LayerScores], Sequence[float | None]], float], ...] = (
    ("Retrieval top-1", "%", lambda layers: layers.retrieval, 100),
    ("Retrieval top-1, languages centred", "%", lambda layers: layers.retrieval_centred, 100),
    ("Translations minus unrelated", "difference of cosines", lambda layers: gaps(layers), 1),
)
LEARNING_PANELS = (
    (StageName.ALIGN, "dev_loss_ntp", "Stage 1: next-token loss"),
    (StageName.ALIGN, "dev_loss_contrastive", "Stage 1: contrastive loss"),
    (StageName.ALIGN, "dev_loss_apart", "Stage 1: contrastive loss, apart"),
    (StageName.INSTRUCT, "dev_loss_ntp", "Stage 2: next-token loss"),
)


@dataclass(frozen=True)
class Figure:
    """Panels that share a legend."""

    panels: list[str]
    legend: list[tuple[str, str]]
    """(variant, colour)."""


def layer_figures(results: Sequence[Results], baseline: str) -> list[Figure]:
    """Scores by layer."""
    groups = _groups(results, baseline)
    return [_figure(_layer_panels(f"layers-{i}", shown, colours), shown, colours) for i, (shown, colours) in enumerate(groups)]


def learning_figures(results: Sequence[Results], baseline: str) -> list[Figure]:
    """Dev losses by share of the stage, of what was trained."""
    groups = [([each for each in shown if each.logs], colours) for shown, colours in _groups(results, baseline)]
    return [
        _figure(_learning_panels(f"learning-{i}", shown, colours), shown, colours) for i, (shown, colours) in enumerate(groups)
    ]


def gain_figures(comparison: Comparison, metric: str, directions: Sequence[str]) -> list[str]:
    """A panel for each variant: how much better or worse than the baseline it is in each direction."""
    rows = {direction: row for row in comparison.rows for direction in directions if row.name == f"{metric} {direction}"}
    models = [model for model in comparison.models if model != comparison.baseline]
    if not rows or comparison.baseline is None:
        return []
    ends = [end for row in rows.values() for model in models for end in _ends(row, model)]
    reach = 1.08 * max(map(abs, ends)) or 1
    height = 0.9 + 0.2 * len(rows)
    return [
        draw(f"gain-{metric}-{i}", model, partial(_paint_gains, rows=rows, model=model, reach=reach, unit=metric), height)
        for i, model in enumerate(models)
    ]


def gaps(layers: LayerScores) -> Sequence[float | None]:
    """Cosine of translations minus that of unrelated sentences."""
    return [None if a is None or b is None else a - b for a, b in zip(layers.similarity, layers.unrelated, strict=False)]


def _groups(results: Sequence[Results], baseline: str) -> list[tuple[list[Results], dict[str, str]]]:
    """A few variants at a time, with the baseline in each group, and the colour of each: the same in every figure."""
    reference = [each for each in results if each.variant.name == baseline]
    others = [each for each in results if each.variant.name != baseline]
    groups = []
    for start in range(0, max(1, len(others)), VARIANTS_IN_A_FIGURE):
        shown = [*reference, *others[start : start + VARIANTS_IN_A_FIGURE]]
        names = [each.variant.name for each in shown]
        groups.append((shown, dict(zip(names, [BASELINE_COLOUR] * len(reference) + LANGUAGE_COLOURS, strict=False))))
    return groups


def _figure(panels: list[str], shown: Sequence[Results], colours: Mapping[str, str]) -> Figure:
    return Figure(panels, [(each.variant.name, colours[each.variant.name]) for each in shown])


def _layer_panels(name: str, results: Sequence[Results], colours: Mapping[str, str]) -> list[str]:
    panels: list[str] = []
    for title, unit, score, scale in LAYER_PANELS:
        curves: dict[str, list[Curve]] = {}
        for each in results:
            every = [score(evaluation.layers) for evaluation in each.evaluations.values()]
            known = [[value * scale for value in values] for values in every if complete(values)]
            if known:
                curves[each.variant.name] = [(list(map(float, range(len(values)))), values) for values in known]
        if curves:
            panels.append(_panel(f"{name}-{len(panels)}", title, ("layer (0 = embeddings)", unit), curves, colours))
    return panels


def _learning_panels(name: str, results: Sequence[Results], colours: Mapping[str, str]) -> list[str]:
    panels: list[str] = []
    for stage, key, title in LEARNING_PANELS:
        every = {each.variant.name: [_dev_curve(log, stage, key) for log in each.logs.values()] for each in results}
        curves = {
            variant: known for variant, seeds in every.items() if (known := [curve for curve in seeds if len(curve[0]) > 1])
        }
        if curves:
            panels.append(_panel(f"{name}-{len(panels)}", title, ("share of the stage (%)", "nats"), curves, colours))
    return panels


def _dev_curve(log: Log, stage: StageName, key: str) -> Curve:
    lines = [line for line in log.dev(stage) if key in line.numbers]
    last = max((line.step for line in lines), default=0) or 1
    return [100 * line.step / last for line in lines], series(lines, key)


def _panel(
    name: str, title: str, labels: tuple[str, str], curves: Mapping[str, Sequence[Curve]], colours: Mapping[str, str]
) -> str:
    """Means over the seeds as lines, lowest to highest seed as bands."""

    def paint(axes: Axes) -> None:
        for variant, seeds in curves.items():
            x, columns = seeds[0][0], list(zip(*(y for _, y in seeds), strict=False))
            colour = COLOUR[colours[variant]]
            axes.plot(x[: len(columns)], [sum(values) / len(values) for values in columns], color=colour)
            if len(seeds) > 1:
                low, high = [min(values) for values in columns], [max(values) for values in columns]
                axes.fill_between(x[: len(columns)], low, high, color=colour, alpha=0.18, linewidth=0)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))

    return draw(name, title, paint)


def _paint_gains(axes: Axes, rows: Mapping[str, Row], model: str, reach: float, unit: str) -> None:
    for place, row in enumerate(rows.values()):
        difference = row.differences[model]
        colour = COLOUR["after" if difference.is_clear else "before"]
        axes.plot(_ends(row, model), [place, place], color=colour, linewidth=1.4)
        axes.plot([difference.value], [place], "o", color=colour, markersize=4.5)
    axes.axvline(0, color=COLOUR["chance"], linewidth=1, linestyle=(0, (3, 2)))
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(-reach, reach)
    axes.set_xlabel(f"{unit}, difference from the baseline")
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)


def _ends(row: Row, model: str) -> tuple[float, float]:
    difference = row.differences[model]
    interval = difference.interval
    return (difference.value, difference.value) if interval is None else (interval.low, interval.high)
