"""Times and peak memory of a function, on a GPU and on a CPU."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

L2_FLUSH_BYTES = 256 << 20
"""More than any card's L2 cache; written before every timed repeat so that none finds its inputs there."""
FEWEST, MOST = 3, 100


@dataclass(frozen=True)
class Times:
    """Median, fastest and slowest of the repeats, in seconds."""

    median: float
    fastest: float
    slowest: float
    repeats: int


def median_seconds(
    run: Callable[[], object], device: torch.device, *, seconds: float = 1.0, reset: Callable[[], None] = lambda: None
) -> Times:
    """Time `run` after a warm-up, repeated for about `seconds`; `reset` is called before every repeat, outside of the clock.

    On a GPU between two events, with the L2 cache overwritten before: the host runs ahead during that write, as it does in a
    training loop, so launch overhead counts only as far as the GPU waits for it.
    """
    once = _on_gpu if device.type == "cuda" else _on_cpu
    times: list[float] = []
    for repeat in range(MOST + 1):
        reset()
        took = once(run)
        if repeat:  # the first is the warm-up
            times.append(took)
        if len(times) >= FEWEST and sum(times) >= seconds:
            break
    return Times(statistics.median(times), min(times), max(times), len(times))


def alternating_ratio(one: Callable[[], object], other: Callable[[], object], rounds: int = 5) -> float:
    """Median of time(one) / time(other) over rounds of both, on a CPU: what else the machine does meets both alike."""
    one(), other()
    return statistics.median(_on_cpu(one) / _on_cpu(other) for _ in range(rounds))


def _on_cpu(run: Callable[[], object]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _on_gpu(run: Callable[[], object]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.empty(L2_FLUSH_BYTES, dtype=torch.int8, device="cuda").zero_()
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000


def gpu_peak_bytes(run: Callable[[], object]) -> int:
    """Most bytes allocated during `run` beyond those allocated before it."""
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def cpu_peak_bytes(run: Callable[[], object]) -> int:
    """Most resident memory during `run` beyond that before it; call it in a fresh process (see `benchmarks.fresh`).

    Reads the kernel's high-water mark, reset just before: `ru_maxrss` would include the peak of the process that started this one.
    """
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident_peak()
    run()
    return _resident_peak() - before


def _resident_peak() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10
