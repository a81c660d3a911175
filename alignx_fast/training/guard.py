"""A step whose loss or gradients are not finite is skipped: nothing of it reaches weights, optimizer, learning rate or losses.

Its rows are kept for the user, it is counted and logged, and too many of them end the run.
"""

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_callback import ExportableState

from alignx_fast.data.spans import Example
from alignx_fast.errors import UserError
from alignx_fast.files import write_text
from alignx_fast.losses.base import Loss
from alignx_fast.models.finite import non_finite
from alignx_fast.training.random_state import RandomState
from alignx_fast.training.step import Terms

log = logging.getLogger(__name__)

REMEDIES = "a lower learning rate or a longer warm-up, --model.dtype float32, or the data without the rows that are to blame"
IN_A_ROW = 3
"""Bad steps one after the other: rows alone are hardly ever to blame for so many."""
START_AGAIN = f"start again with {REMEDIES}, and another folder with --output"


@dataclass(frozen=True)
class WaitingStep:
    """A step whose gradients are there and not yet judged."""

    terms: Terms
    rows: list[Example]
    before: RandomState
    remembered: dict[Loss, dict[str, torch.Tensor]]
    """The state before the step of the losses that remember it."""


class SkippedSteps(TrainerCallback, ExportableState):
    """Counts the steps of a stage that are skipped; the count is part of every checkpoint.

    Args:
        folder: of the stage; the rows of skipped steps are kept in `skipped/` there.
        allowed: steps that may be skipped; None: one in a hundred of the stage, at least 3 and at most 20. Three in a row are too many always.
        tokenizer: makes text of the rows; without one they are kept as tokens.
        writes: whether this process is the one of several that writes; all of them have all rows of a step.
    """

    def __init__(
        self, folder: Path, allowed: int | None, tokenizer: PreTrainedTokenizerBase | None, *, writes: bool = True
    ) -> None:
        self.folder, self.allowed, self.tokenizer, self.writes = folder / "skipped", allowed, tokenizer, writes
        self.count, self.in_a_row, self.skipping = 0, 0, False

    def state(self) -> dict[str, dict[str, int]]:
        """What a checkpoint keeps."""
        return {"args": {}, "attributes": {"count": self.count, "in_a_row": self.in_a_row}}

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object) -> None:
        """Go on counting where the checkpoint stopped; one of an older version counts nothing."""
        states = cast("dict[str, Any]", state.stateful_callbacks)  # a list before TrainerState is made, a dictionary after
        kept = states.setdefault(type(self).__name__, self.state())["attributes"]
        self.count, self.in_a_row, self.skipping = kept["count"], kept["in_a_row"], False

    def on_optimizer_step(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **trained: Any) -> None:
        """Mark the step as accelerate marks one that its loss scaling skips: Trainer then leaves the learning rate as it is."""
        if self.skipping:
            trained["optimizer"]._is_overflow = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **trained: Any) -> None:
        """Take the mark back."""
        if self.skipping:
            trained["optimizer"]._is_overflow = self.skipping = False
        else:
            self.in_a_row = 0

    def skip(self, step: int, reason: str, rows: Sequence[Example], steps: int, *, hopeless: bool) -> None:
        """Keep the rows of a step that is skipped, and count it.

        Args:
            reason: such as "loss_ntp is nan".
            steps: of the whole stage.
            hopeless: the weights are not finite, so that no step after it can be good.

        Raises:
            UserError: there were too many.
        """
        file = self.folder / f"step-{step}.jsonl"
        if self.writes:
            self._keep(file, [{"step": step, "reason": reason, "rows": len(rows)}, *map(self._line, rows)])
        allowed = max(3, min(20, steps // 100)) if self.allowed is None else self.allowed
        if hopeless or self.count >= allowed or self.in_a_row + 1 >= IN_A_ROW:
            before = f", and {self.count} steps before it were skipped for the like" if self.count else ""
            raise UserError(
                f"{reason} at step {step}{before}: start again with a lower learning rate or a longer warm-up, and another folder with "
                f"--output, or continue with --resume --accept-changes and --model.dtype float32, a lower learning rate, or data without "
                f"the rows in {file}."
            )
        self.count, self.in_a_row, self.skipping = self.count + 1, self.in_a_row + 1, True
        log.warning("Step %d is skipped: %s. Its rows are in %s; skipped so far: %d.", step, reason, file, self.count)

    def check_most_taken(self, steps: int) -> None:
        """Refuse a stage more than half of whose steps were skipped.

        Raises:
            UserError: says what to try.
        """
        if self.count > steps / 2:
            raise UserError(f"{self.count} of {steps} steps were skipped, and their rows are in {self.folder}: {START_AGAIN}.")

    def _keep(self, file: Path, lines: Sequence[Mapping[str, object]]) -> None:
        try:
            write_text(file, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
        except OSError as error:
            log.warning("%s cannot be written: %s.", file, error.strerror)

    def _line(self, row: Example) -> Mapping[str, object]:
        if self.tokenizer is None:
            return {"input_ids": row["input_ids"]}
        spans = {name: row[name] for name in ("source", "target") if row[name][1] > row[name][0]}
        parts = {"text": (0, None)} | {name: (start, end) for name, (start, end) in spans.items()}
        return {name: self.tokenizer.decode(row["input_ids"][start:end]) for name, (start, end) in parts.items()}


def non_finite_parts(model: nn.Module, losses: Iterable[Loss]) -> list[str]:
    """Names of the parameters of model and losses that hold NaN or infinity."""
    own = [(f"the loss {loss.name} ({name})", tensor) for loss in losses for name, tensor in loss.named_parameters()]
    return non_finite([*model.named_parameters(), *own])


def check_weights(model: nn.Module, losses: Iterable[Loss], step: int) -> None:
    """Refuse to save weights that are not finite.

    Raises:
        UserError: names the first of them and what to try.
    """
    if names := non_finite_parts(model, losses):
        others = f" and in {len(names) - 1} more tensors" if len(names) > 1 else ""
        raise UserError(
            f"After step {step} there is NaN or infinity in {names[0]}{others}, so nothing is saved of it: continue from the checkpoint "
            f"before, with --resume --accept-changes and {REMEDIES}."
        )


def check_dev_loss(value: float, step: int) -> None:
    """Refuse a model whose last dev loss is not finite.

    Raises:
        UserError: says what to try.
    """
    if not math.isfinite(value):
        raise UserError(f"The dev loss is {value} after step {step}, so no model is saved: {START_AGAIN}.")


def bad_value(values: Mapping[str, float]) -> str | None:
    """What is not finite among the loss terms and the gradient norm of a step, such as "loss_ntp is nan"; the sum is named last."""
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    name = next((name for name in bad if name != "loss"), next(iter(bad), None))
    return None if name is None else f"{name} is {values[name]}"
