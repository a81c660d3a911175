"""How the page and the terminal call points of evaluation, stages and losses, and which colour stands for which."""

from dataclasses import dataclass

from alignx_fast.evaluation.results import EvaluatedAt
from alignx_fast.stages import StageName

POINT_TITLES = {
    EvaluatedAt.BEFORE: "before",
    EvaluatedAt.NTP_ONLY: "L_ntp alone",
    EvaluatedAt.AFTER_ALIGN: "after stage 1",
    EvaluatedAt.AFTER: "after",
    EvaluatedAt.NOW: "now",
}
"""The colour of a point is the page's CSS variable of the same name as the point: `--before`."""


@dataclass(frozen=True)
class StageLabel:
    """Names of a stage, and the point whose colour its curves have."""

    title: str
    short: str
    colour: EvaluatedAt


STAGE_LABELS: dict[str, StageLabel] = {
    StageName.ALIGN: StageLabel("stage 1, align", "stage 1", EvaluatedAt.AFTER_ALIGN),
    StageName.NTP_ONLY: StageLabel("stage 1 control, L_ntp alone", "L_ntp alone", EvaluatedAt.NTP_ONLY),
    StageName.INSTRUCT: StageLabel("stage 2, instruct", "stage 2", EvaluatedAt.AFTER),
}
"""In the order of the page."""

WHOLE_LOSS_TITLE = "whole loss L"
LOSS_TITLES = {
    "ntp": "next-token prediction L_ntp",
    "contrastive": "contrastive L_ctr",
    "matching": "language matching L_lam",
}
"""Titles of loss terms where the log does not give them."""


def stage_title(stage: str) -> str:
    """The title of a stage; a stage that is not known has its own name."""
    return STAGE_LABELS[stage].title if stage in STAGE_LABELS else stage
