"""Losses and gradient norm by optimizer step."""

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from alignx_fast.report.figures.svg import COLOUR, draw
from alignx_fast.report.labels import STAGE_LABELS
from alignx_fast.report.log import LOSS, Log, LogLine
from alignx_fast.stages import StageName

MAX_POINTS = 400  # of a curve: more than the page can show
NTP = f"{LOSS}_ntp"


def loss_curves(log: Log) -> list[str]:
    """A panel for every loss of stage 1 (its control beside it) and of stage 2, and for the gradient norm."""
    stage_1, stage_2 = [StageName.ALIGN, StageName.NTP_ONLY], [StageName.INSTRUCT]
    terms = log.loss_terms(stage_2)
    return [
        *stage_curves(log, "Stage 1", stage_1, [LOSS, *log.loss_terms(stage_1)]),
        *stage_curves(log, "Stage 2", stage_2, terms if len(terms) == 1 else [LOSS, *terms]),  # a single term is the whole loss
        *curves(log, "gradient-norm", "Gradient norm before clipping", list(STAGE_LABELS), "grad_norm", "norm"),
    ]


def stage_curves(log: Log, title: str, stages: Sequence[StageName], losses: Sequence[str]) -> list[str]:
    """A panel for each of the losses."""
    panels = []
    for loss in losses:
        # The control minimises L_ntp: it has no other term, and its whole loss is another quantity.
        shown = [stage for stage in stages if stage is not StageName.NTP_ONLY or loss == NTP]
        panels += curves(log, f"loss-{stages[0]}-{loss}", f"{title}: {log.loss_title(loss)}", shown, loss, "nats")
    return panels


def curves(log: Log, name: str, title: str, stages: Sequence[str], key: str, unit: str) -> list[str]:
    """One panel of a logged number by step, dev values as rings; none where there are fewer than two steps."""
    lines = {stage: curve(log.steps(stage), key) for stage in stages}
    if not any(len(steps) > 1 for steps, _ in lines.values()):
        return []

    def paint(axes: Axes) -> None:
        for stage, (steps, values) in lines.items():
            axes.plot(steps, values, color=COLOUR[STAGE_LABELS[stage].colour], linewidth=1.2)
        for stage in stages:
            steps, values = curve(log.dev(stage), f"dev_{key}")
            colour = COLOUR[STAGE_LABELS[stage].colour]
            axes.plot(steps, values, "o", color=COLOUR["page"], markeredgecolor=colour, markersize=4.5)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(unit)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))

    return [draw(name, title, paint)]


def curve(lines: Sequence[LogLine], key: str) -> tuple[list[float], list[float]]:
    """(steps, values) of the lines that have a number under `key`, thinned to about `MAX_POINTS`."""
    points = [(line.step, line.numbers[key]) for line in lines if key in line.numbers]
    points = points[:: max(1, len(points) // MAX_POINTS)]
    return [step for step, _ in points], [value for _, value in points]
