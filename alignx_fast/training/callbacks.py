"""The run log (JSONL, always written) and the progress on the terminal."""

import json
import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from alignx_fast.files import finite, write_text

SECONDS_BETWEEN_CHECKPOINTS = 1800

log = logging.getLogger(__name__)

Handler = Callable[[int, FrameType | None], object] | int | None
"""What `signal.signal` takes and gives back."""


class RunLog(TrainerCallback):
    """Appends one line of JSON per log or dev evaluation; on resume, lines beyond the checkpoint are dropped first."""

    def __init__(self, path: Path, stage: str, resumed_step: int) -> None:
        self.path, self.stage = path, stage
        self.offset = 0.0
        kept = [line for line in read_lines(path) if line["stage"] != stage or line["step"] <= resumed_step]
        self.seen = {(line["stage"], line["step"], line.get("event")) for line in kept}
        if kept:
            self.offset = kept[-1]["time"]
        write_text(path, "".join(json.dumps(line) + "\n" for line in kept))
        self.started = time.monotonic()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        """Called by the Trainer for training lines, dev lines and its final summary; the summary is left out."""
        logs = logs or {}
        if "eval_loss" in logs:
            self.event("dev", state.global_step, {"dev_" + k[5:]: v for k, v in logs.items() if k.startswith("eval_loss")})
        elif "tokens_per_micro_batch" in logs:
            self.event("out_of_memory", state.global_step, logs)
        elif "skipped_steps" in logs:
            self.event("skipped", state.global_step + 1, logs)
        elif "loss" in logs:
            self._write(state.global_step, {k: v for k, v in logs.items() if k != "total_flos"})

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """The last step is always written, so that the lines add up to what the stage cost."""
        if state.global_step == state.max_steps:
            control.should_log = True

    def event(self, name: str, step: int, values: Mapping[str, object]) -> None:
        """A line that is no training step."""
        self._write(step, {"event": name, **values})

    def _write(self, step: int, values: Mapping[str, object]) -> None:
        if (self.stage, step, values.get("event")) in self.seen:
            return
        line = {"stage": self.stage, "step": step, "time": self.offset + time.monotonic() - self.started, **values}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(finite(line)) + "\n")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The lines of a run log; those that a kill cut off or a disk damaged are left out."""
    lines = []
    for text in path.read_bytes().split(b"\n") if path.is_file() else []:
        try:
            line = json.loads(text)
        except (ValueError, RecursionError):
            continue
        if (
            isinstance(line, dict)
            and isinstance(line.get("stage"), str)
            and all(_is_number(line.get(k)) for k in ("step", "time"))
        ):
            lines.append(line)
    return lines


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


class StopAtStepEnd(TrainerCallback):
    """Ctrl-C or SIGTERM lets the step end and saves a checkpoint, so that nothing is lost; a second one stops at once."""

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[signal.Signals, Handler] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
            self.before = {kind: signal.signal(kind, self._ask) for kind in (signal.SIGINT, signal.SIGTERM)}

    def _ask(self, *_: object) -> None:
        self.asked = True
        log.warning("Stopping after this step, with a checkpoint; once more stops at once.")
        self._restore()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if self.asked:
            control.should_save = control.should_training_stop = True

    def __exit__(self, *error: object) -> None:
        self._restore()
        if self.asked and error[0] is None:
            raise KeyboardInterrupt

    def _restore(self) -> None:
        for kind, handler in self.before.items():
            signal.signal(kind, handler)


class SaveByTheClock(TrainerCallback):
    """A checkpoint where the last one is half an hour old: what kills a process outright costs no more than that."""

    def __init__(self) -> None:
        self.saved = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if time.monotonic() - self.saved > SECONDS_BETWEEN_CHECKPOINTS:
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        self.saved = time.monotonic()


class ProgressLine(TrainerCallback):
    """A progress bar on a terminal, plain lines elsewhere: step, loss terms, tokens/s, time left."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.bar: Progress | None = None
        self.task = TaskID(0)
        self.started, self.first_step = 0.0, 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        self.started, self.first_step = time.monotonic(), state.global_step
        if sys.stdout.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[terms]}"),
            )
            self.bar = Progress(*columns, console=Console())
            self.task = self.bar.add_task(self.title, total=state.max_steps, completed=state.global_step, terms="")
            self.bar.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        if self.bar is not None:
            self.bar.update(self.task, completed=state.global_step)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        logs = logs or {}
        if "loss" in logs:
            text = loss_terms(logs, "")
            text += f"  {logs.get('tokens_per_second', math.nan):,.0f} tokens/s"
        elif "eval_loss" in logs:
            text = "dev  " + loss_terms(logs, "eval_")
        else:
            return
        if self.bar is not None:
            if "eval_loss" in logs:
                self.bar.console.print(f"{self.title}  step {state.global_step}  {text}", highlight=False)
            self.bar.update(self.task, terms=text)
        else:
            log.info("%s  %d/%d  %s  %s", self.title, state.global_step, state.max_steps, text, self._time_left(state))

    def _time_left(self, state: TrainerState) -> str:
        done = state.global_step - self.first_step
        if not done:
            return ""
        seconds = (time.monotonic() - self.started) / done * (state.max_steps - state.global_step)
        return f"{int(seconds) // 60}:{int(seconds) % 60:02d} left"

    def close(self) -> None:
        """Take the bar down, also after an error."""
        if self.bar is not None:
            self.bar.stop()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        self.close()


def loss_terms(logs: Mapping[str, float], prefix: str) -> str:
    """The whole loss and its terms in one line: `loss 2.345  ntp 2.012  contrastive 0.417`."""
    names = sorted((key for key in logs if key.startswith(f"{prefix}loss")), key=lambda key: key != f"{prefix}loss")
    return "  ".join(f"{key.removeprefix(prefix).removeprefix('loss_')} {logs[key]:.3f}" for key in names)
