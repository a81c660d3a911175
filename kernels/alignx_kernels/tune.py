"""`python -m alignx_kernels tune`: who multiplies faster on this card, the kernels or PyTorch's library, and from which size on.

For each kind of product and width D it times the loss with its gradients both ways, in one direction, and prints the times and the line of
`info_nce.tiles.LIBRARY_FROM` that they give. A way must be 2 % faster than the other to count as such.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from time import perf_counter
from typing import NamedTuple

import torch

from .common.tiles import architecture
from .info_nce import info_nce_loss, tiles

KINDS = {"16-bit": torch.bfloat16, "tf32": torch.float32, "fp32": torch.float32}
WIDTHS = (512, 1024, 2048, 4096)
ROWS = (4096, 16384, 32768)
REPEATS = 5
GAIN = 1.02
NO_CARD = "There is no CUDA GPU here, so nothing was measured: run `python -m alignx_kernels tune` on the machine with the card."


class Case(NamedTuple):
    """N = M = rows vectors of width d, multiplied as `kind` says."""

    kind: str
    d: int
    rows: int


class Times(NamedTuple):
    """Seconds of forward and backward; infinite where memory lacks."""

    kernels: float
    library: float


def main() -> int:
    """Measure and print; 1 where there is no card."""
    if not torch.cuda.is_available():
        print(NO_CARD)
        return 1
    device = torch.device("cuda")
    measured: dict[Case, Times] = {}
    for case in cases():
        measured[case] = Times(*(seconds(case, use_library, device) for use_library in (False, True)))
        print(row(case, measured[case]), flush=True)
    print(f"LIBRARY_FROM: {architecture(device)}: {thresholds(measured)},  # {torch.cuda.get_device_name(device)}")
    return 0


def cases() -> list[Case]:
    """Small ones first."""
    return [Case(kind, d, rows) for kind in KINDS for d in WIDTHS for rows in ROWS]


def row(case: Case, times: Times) -> str:
    """One line of the printed table."""
    ours, library = (f"{1e3 * time:9.2f} ms" for time in times)
    return f"{case.kind:7} D {case.d:5} N = M {case.rows:6}   kernels {ours}   library {library}"


def thresholds(measured: Mapping[Case, Times]) -> dict[str, tuple[int, int]]:
    """For each kind the smallest (D, N * M) from which on the library was faster in every case; left out where there is none."""
    found: dict[str, tuple[int, int]] = {}
    for kind in KINDS:
        mine = {case: times for case, times in measured.items() if case.kind == kind}
        for corner in sorted(mine, key=lambda case: (case.d, case.rows)):
            beyond = [times for case, times in mine.items() if case.d >= corner.d and case.rows >= corner.rows]
            if all(GAIN * times.library < times.kernels for times in beyond):
                found[kind] = (corner.d, corner.rows**2)
                break
    return found


def seconds(case: Case, use_library: bool, device: torch.device) -> float:
    """The median time of a forward and backward pass."""
    queries, keys = (torch.randn(case.rows, case.d, device=device, dtype=KINDS[case.kind], requires_grad=True) for _ in range(2))
    try:
        with multiplied_by(case.kind, use_library, device):
            return _timed(lambda: torch.autograd.grad(info_nce_loss(queries, keys, impl="triton"), (queries, keys)))
    except torch.cuda.OutOfMemoryError:
        return float("inf")


@contextmanager
def multiplied_by(kind: str, use_library: bool, device: torch.device) -> Iterator[None]:
    """Have products of this kind made by the library, or else by the kernels, whatever the table says."""
    arch, before = architecture(device), dict(tiles.LIBRARY_FROM)
    precision = torch.backends.cuda.matmul.fp32_precision
    tiles.LIBRARY_FROM[arch] = {kind: (0, 0)} if use_library else {}
    torch.backends.cuda.matmul.fp32_precision = "ieee" if kind == "fp32" else "tf32"
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = precision
        tiles.LIBRARY_FROM.clear()
        tiles.LIBRARY_FROM.update(before)


def _timed(step: Callable[[], object]) -> float:
    times = []
    for _ in range(REPEATS + 2):  # the first two compile and fill the allocator
        torch.cuda.synchronize()
        start = perf_counter()
        step()
        torch.cuda.synchronize()
        times.append(perf_counter() - start)
    return median(times[2:])
