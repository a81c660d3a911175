"""Runs one contender of one case and measures its second step."""

import dataclasses
import math
import re
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel, Trainer, TrainerCallback

from alignx_fast.data.spans import Example
from alignx_fast.hardware import device
from alignx_fast.memory.gpus import named
from alignx_fast.memory.sizes import count
from alignx_fast.models import attention
from alignx_fast.models.capture import causal_model
from alignx_fast.training.trainer import AlignXTrainer
from benchmarks.fresh import FreshProcessError, in_fresh_process
from benchmarks.measure import Row
from benchmarks.step.cases import StepCase, config_of
from benchmarks.step.contenders import STEPS, build, obstacle
from benchmarks.step.rows import rows_from_file, synthetic_rows

OUT_OF_MEMORY = re.compile(r"out of memory|OutOfMemoryError|ALLOC_FAILED")


class StepClock(TrainerCallback):
    """When each optimizer step ended and the micro-batch it was made with; the GPU's peak counter starts anew after the first."""

    def __init__(self, case: StepCase, contender: str, trainer: Trainer) -> None:
        self.case, self.contender, self.trainer = case, contender, trainer
        self.ends: list[float] = []
        self.micro_batches: list[dict[str, int]] = []

    def on_step_end(self, *_: object, **__: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            if not self.ends:
                torch.cuda.reset_peak_memory_stats()
        self.ends.append(time.perf_counter())
        if isinstance(self.trainer, AlignXTrainer):  # halves its micro-batch when memory runs out
            self.micro_batches.append({"tokens_per_micro_batch": self.trainer.tokens_per_micro_batch})
        else:
            self.micro_batches.append(self.case.micro_batch(self.contender))


def run_step(case: StepCase, contender: str, rows_file: Path | None, limit: float = 600.0) -> Row:
    """The row of results; on a GPU from a process of its own, whose memory is capped, whose patches end with it, and which has `limit` seconds.

    A contender that runs out of memory starts afresh with micro-batches half as large, until it runs or cannot have smaller ones.
    """
    head: Row = {"family": "train_step", "problem": case.name, "implementation": contender}
    if reason := obstacle(contender):
        return head | {"status": "not run", "reason": reason}
    until = time.monotonic() + limit
    while True:
        arguments = (dataclasses.asdict(case), contender, str(rows_file) if rows_file else None)
        try:
            measured = (
                in_fresh_process(__name__, "measure_step", *arguments, timeout=max(1.0, until - time.monotonic()))
                if device().type == "cuda"
                else measure_step(*arguments)
            )
            return head | measured | {"status": "ok"}
        except (FreshProcessError, torch.OutOfMemoryError) as error:
            ended = head | case.micro_batch(contender) | {"reason": str(error)}
        if not OUT_OF_MEMORY.search(ended["reason"]):
            return ended | {"status": "failed"}
        if (smaller := case.halved(contender)) is None:
            return ended | {"status": "out of memory"}
        case = smaller


def measure_step(case_fields: dict[str, Any], contender: str, rows_file: str | None) -> Row:
    """Train two steps on the same rows and measure the second, from the end of the first to its own end.

    Raises:
        torch.OutOfMemoryError: there was no memory, or too little in the measured step, whose time then holds a failed attempt.
    """
    case = StepCase(**case_fields)
    on_gpu = device().type == "cuda"
    if on_gpu and case.cap_gb is not None:
        torch.cuda.set_per_process_memory_fraction(case.cap_gb * 1e9 / torch.cuda.get_device_properties(0).total_memory)
    vocabulary = config_of(case).vocab_size
    if rows_file is None:
        rows = synthetic_rows(case.rows, vocabulary, pairs=case.stage == "align")
    else:
        rows = rows_from_file(Path(rows_file), case.rows, vocabulary)
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(case, contender, rows, Path(folder))
        weights = torch.cuda.memory_allocated() if on_gpu else None
        clock = StepClock(case, contender, trainer)
        trainer.add_callback(clock)
        loss = trainer.train().training_loss
    if not math.isfinite(loss) or len(clock.ends) != STEPS:
        raise RuntimeError(
            f"{contender} made {len(clock.ends)} steps with loss {loss}; {STEPS} steps with a finite one were due."
        )
    first, second = clock.micro_batches
    if second != first:
        raise torch.OutOfMemoryError(f"{contender} ran out of memory in the measured step.")
    seconds = clock.ends[1] - clock.ends[0]
    tokens = sum(len(row["input_ids"]) for row in rows)
    peak = model_peak_flops()
    return {
        "rows": case.rows,
        "tokens": tokens,
        **second,
        "attention": attention_of(causal_model(trainer.model)),
        "seconds": seconds,
        "loss": loss,
        "tokens_per_second": tokens / seconds,
        "model_flops": model_flops(case, rows),
        "utilisation": None if peak is None else model_flops(case, rows) / seconds / peak,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
        "weights_gib": None if weights is None else weights / 2**30,
    }


def attention_of(model: PreTrainedModel) -> str:
    """What its attention runs through: ours by what it has chosen, any other by its name in transformers."""
    return attention.in_use(model) if attention.is_packed(model) else model.config._attn_implementation


def model_flops(case: StepCase, rows: list[Example]) -> float:
    """What next-token training needs, without recomputation, padding, alignment losses or adapters.

    2 a weight and token forward, 2 more for the gradients of activations, and 2 more where weights are trained; causal attention
    2 L^2 per layer and unit of width forward, twice that backward.
    """
    sizes = count(config_of(case))
    weights = sizes.quantised + sizes.vocabulary * sizes.width
    lengths = [len(row["input_ids"]) for row in rows]
    attention = 6 * sizes.attention * sizes.layers * sum(length**2 for length in lengths)
    return (6 if case.tuning == "full" else 4) * weights * sum(lengths) + attention


def model_peak_flops() -> float | None:
    """The device's data-sheet rate, None where it is not listed."""
    if not torch.cuda.is_available():
        return None
    return next((gpu.tflops * 1e12 for gpu in named(torch.cuda.get_device_name())), None)
