"""The table of stages: how long, how fast, and from which loss to which."""

import statistics
from dataclasses import dataclass

from alignx_fast.report.formats import decimal, first_to_last, or_dash, whole
from alignx_fast.report.labels import STAGE_LABELS
from alignx_fast.report.log import LOSS, Log, series


@dataclass(frozen=True)
class TrainingRow:
    """One stage, written out."""

    stage: str
    steps: str
    epochs: str
    minutes: str
    speed: str
    """Median, tokens per second."""
    memory: str
    """Peak, GiB."""
    loss: str
    dev: str


def training_rows(log: Log) -> list[TrainingRow]:
    """A row for each stage that has steps."""
    return [training_row(log, stage) for stage in STAGE_LABELS if log.steps(stage)]


def training_row(log: Log, stage: str) -> TrainingRow:
    """The row of a stage that has steps."""
    lines = log.steps(stage)
    times, epochs = series(lines, "time"), series(lines, "epoch")
    speeds, memory = series(lines, "tokens_per_second"), series(lines, "memory_gib")
    return TrainingRow(
        stage=STAGE_LABELS[stage].title,
        steps=f"{lines[-1].step:,}",
        epochs=or_dash(epochs[-1] if epochs else None, decimal),
        minutes=or_dash((times[-1] - log.started_at(stage)) / 60 if times else None, decimal),
        speed=or_dash(statistics.median(speeds) if speeds else None, whole),
        memory=or_dash(max(memory, default=None), decimal),
        loss=first_to_last(series(lines, LOSS)),
        dev=first_to_last(series(log.dev(stage), f"dev_{LOSS}")),
    )
