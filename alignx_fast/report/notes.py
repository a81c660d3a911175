"""What a reader must know before believing the numbers."""

from alignx_fast.evaluation.results import EvaluatedAt
from alignx_fast.report.labels import POINT_TITLES, stage_title
from alignx_fast.report.read import Run

ONE_SEED = "One run with one seed: small differences may be chance. Repeat with other seeds before drawing conclusions."
TINY_MODEL = (
    "builtin:tiny is a model of a few million parameters, trained from scratch on little text. It shows that the method "
    "and the code work. It cannot translate usefully, knows nothing of the world, and says nothing about a large model."
)
CONTROL = (
    f"{POINT_TITLES[EvaluatedAt.NTP_ONLY]!r} is a control trained for the same number of stage 1 steps without the "
    "alignment losses."
)


def notes(run: Run) -> list[str]:
    """General warnings first, then each note of the evaluations once."""
    sentences = [ONE_SEED]
    if run.settings.model_path == "builtin:tiny":
        sentences.append(TINY_MODEL)
    if EvaluatedAt.NTP_ONLY in run.evaluations:
        sentences.append(CONTROL)
    sentences += [_skipped(run, stage) for stage in run.stages if run.log.skipped(stage)]
    return sentences + list(dict.fromkeys(note for evaluation in run.evaluations.values() for note in evaluation.notes))


def _skipped(run: Run, stage: str) -> str:
    steps = [f"{step:.0f}" for step in run.log.skipped(stage)]
    return (
        f"{stage_title(stage)} skipped step{'s' if len(steps) > 1 else ''} {', '.join(steps)}: loss or gradients were not finite. The rows are in "
        f"{stage}/skipped."
    )
