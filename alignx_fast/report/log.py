"""The log of a run, line by line."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignx_fast.report.labels import LOSS_TITLES, WHOLE_LOSS_TITLE

LOSS = "loss"
"""Key of the whole loss; its terms are `loss_NAME`."""


@dataclass(frozen=True)
class LogLine:
    """One line of log.jsonl."""

    stage: str
    step: float
    event: str | None
    """None for a training step."""
    numbers: dict[str, float]
    """Everything on the line that is a number."""
    loss_titles: dict[str, str]
    """Titles of loss terms by name, given where a stage starts."""


@dataclass(frozen=True)
class Log:
    """All lines of a log, in the order in which they were written."""

    lines: Sequence[LogLine] = ()

    def steps(self, stage: str) -> list[LogLine]:
        """The training lines of one stage."""
        return [line for line in self.lines if line.stage == stage and line.event is None]

    def dev(self, stage: str) -> list[LogLine]:
        """The dev-set lines of one stage."""
        return [line for line in self.lines if line.stage == stage and line.event == "dev"]

    def skipped(self, stage: str) -> list[float]:
        """The steps of a stage that were skipped, since their loss or gradients were not finite."""
        return [line.step for line in self.lines if line.stage == stage and line.event == "skipped"]

    def loss_titles(self) -> dict[str, str]:
        """Titles of loss terms by name: the built-in ones, and those that the log gives where a stage starts."""
        return LOSS_TITLES | {name: title for line in self.lines for name, title in line.loss_titles.items()}

    def loss_title(self, key: str) -> str:
        """How the page calls a loss; a term without a title has its own name."""
        name = key.removeprefix(f"{LOSS}_")
        return WHOLE_LOSS_TITLE if key == LOSS else self.loss_titles().get(name, name)

    def loss_terms(self, stages: Iterable[str]) -> list[str]:
        """Keys of the loss terms that were logged in any of the stages, in the order of their titles, others as they appear."""
        keys = dict.fromkeys(key for stage in stages for line in self.steps(stage) for key in line.numbers)
        terms = [key for key in keys if key.startswith(f"{LOSS}_")]
        order = [f"{LOSS}_{name}" for name in self.loss_titles()]
        return sorted(terms, key=lambda term: order.index(term) if term in order else len(order))

    def started_at(self, stage: str) -> float:
        """Seconds on the log's clock before the first training line of a stage; the clock runs on from stage to stage."""
        first = self.lines.index(self.steps(stage)[0])
        return max(series(self.lines[:first], "time"), default=0.0)


def series(lines: Iterable[LogLine], key: str) -> list[float]:
    """The values under one key, where there are any."""
    return [line.numbers[key] for line in lines if key in line.numbers]


def read_log(path: Path) -> Log:
    """Read log.jsonl; a killed run may leave half a line, which is skipped."""
    if not path.exists():
        return Log()
    texts = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return Log([line for text in texts if (line := parse_line(text)) is not None])


def parse_line(text: str) -> LogLine | None:
    """A line of the log, or None where it is damaged."""
    try:
        entry = json.loads(text)
    except json.JSONDecodeError:
        return None
    if not isinstance(entry, dict) or not isinstance(entry.get("step"), int | float):
        return None
    titles = entry.get("loss_titles")
    return LogLine(
        stage=str(entry.get("stage")),
        step=entry["step"],
        event=str(entry["event"]) if "event" in entry else None,
        numbers={key: value for key, value in entry.items() if isinstance(value, int | float)},
        loss_titles={str(name): str(title) for name, title in titles.items()} if isinstance(titles, dict) else {},
    )
