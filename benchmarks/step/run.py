"""Runs one contender of one case and measures its second step."""

import math
import tempfile
import time
from pathlib import Path

import torch
from transformers import TrainerCallback

from alignx_fast.data.spans import Example
from alignx_fast.memory.gpus import GPUS
from alignx_fast.memory.sizes import count
from alignx_fast.models.load import device
from benchmarks.fresh import FreshProcessError, in_fresh_process
from benchmarks.measure import Row
from benchmarks.step.cases import StepCase, config_of, find
from benchmarks.step.contenders import STEPS, build, obstacle
from benchmarks.step.rows import rows_from_file, synthetic_rows


class StepClock(TrainerCallback):
    """When each optimizer step ended; the GPU's peak counter starts anew after the first."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def on_step_end(self, *_: object, **__: object) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
            if not self.ends:
                torch.cuda.reset_peak_memory_stats()
        self.ends.append(time.perf_counter())


def run_step(case: StepCase, contender: str, rows_file: Path | None) -> Row:
    """The row of results; on a GPU from a process of its own, whose memory is capped and whose patches end with it."""
    head: Row = {"family": "train_step", "problem": case.name, "implementation": contender}
    if reason := obstacle(contender):
        return head | {"status": "not run", "reason": reason}
    arguments = (case.name, contender, str(rows_file) if rows_file else None)
    try:
        measured = in_fresh_process(__name__, "measure_step", *arguments) if device().type == "cuda" else measure_step(*arguments)
    except FreshProcessError as error:
        status = "out of memory" if "OutOfMemoryError" in str(error) or "out of memory" in str(error) else "failed"
        return head | {"status": status, "reason": str(error)}
    return head | measured | {"status": "ok"}


def measure_step(case_name: str, contender: str, rows_file: str | None) -> Row:
    """Train two steps on the same rows and measure the second, from the end of the first to its own end."""
    case = find(case_name)
    on_gpu = device().type == "cuda"
    if on_gpu and case.cap_gb is not None:
        torch.cuda.set_per_process_memory_fraction(case.cap_gb * 1e9 / torch.cuda.get_device_properties(0).total_memory)
    vocabulary = config_of(case).vocab_size
    if rows_file is None:
        rows = synthetic_rows(case.rows, vocabulary, pairs=case.stage == "align")
    else:
        rows = rows_from_file(Path(rows_file), case.rows, vocabulary)
    clock = StepClock()
    with tempfile.TemporaryDirectory() as folder:
        trainer = build(case, contender, rows, Path(folder))
        weights = torch.cuda.memory_allocated() if on_gpu else None
        trainer.add_callback(clock)
        loss = trainer.train().training_loss
    if not math.isfinite(loss) or len(clock.ends) != STEPS:
        raise RuntimeError(
            f"{contender} made {len(clock.ends)} steps with loss {loss}; {STEPS} steps with a finite one were due."
        )
    seconds = clock.ends[1] - clock.ends[0]
    tokens = sum(len(row["input_ids"]) for row in rows)
    peak = model_peak_flops()
    return {
        "rows": case.rows,
        "tokens": tokens,
        "seconds": seconds,
        "loss": loss,
        "tokens_per_second": tokens / seconds,
        "model_flops": model_flops(case, rows),
        "utilisation": None if peak is None else model_flops(case, rows) / seconds / peak,
        "peak_gib": torch.cuda.max_memory_allocated() / 2**30 if on_gpu else None,
        "weights_gib": None if weights is None else weights / 2**30,
    }


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
    name = torch.cuda.get_device_name()
    return next((gpu.tflops * 1e12 for gpu in GPUS if gpu.name.split(" 40GB")[0].split(" 80GB")[0] in name), None)
