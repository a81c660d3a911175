"""What this device can do, measured in the same run as everything else: the floors are work over these rates."""

from functools import cache

import torch

from benchmarks.timing import median_seconds


class Rates:
    """Rates of one device, each measured once, when first asked for."""

    def __init__(self, device: torch.device, measured: dict[str, float] | None = None) -> None:
        self.device = device
        self.measured = measured or {}

    def matmul(self, dtype: str) -> float:
        """FLOP/s of a large `torch.matmul` on random data; `dtype` is "bf16", "fp32", "fp32-autocast" (multiplied in bf16) or "fp64"."""
        dtype = "bf16" if dtype == "fp32-autocast" else dtype
        size = {"cuda": 8192, "cpu": 2048}[self.device.type]
        if dtype == "fp64":
            size //= 2
        return self._rate(f"matmul_{dtype}_flops", lambda: _matmul_work(size, dtype, self.device))

    def copy(self) -> float:
        """Bytes/s of a copy much larger than any cache, read and written bytes both counted."""
        return self._rate("copy_bytes", lambda: _copy_work((1 << 32) if self.device.type == "cuda" else (1 << 28), self.device))

    def exponentials(self) -> float:
        """Exponentials/s in fp32, out of registers on a GPU and out of cache on a CPU."""
        return self._rate("exponentials", lambda: _exponential_work(self.device))

    def _rate(self, name, work) -> float:
        if name not in self.measured:
            amount, run = work()
            times = median_seconds(run, self.device, seconds=0.5)
            # A GPU's fastest repeat runs before its clocks settle; a CPU's slower ones show what else the machine was doing.
            self.measured[name] = amount / (times.median if self.device.type == "cuda" else times.fastest)
        return self.measured[name]


@cache
def rates(device: str) -> Rates:
    """The rates of a device, kept for the whole run."""
    return Rates(torch.device(device))


def _matmul_work(size: int, dtype: str, device: torch.device):
    kind = {"bf16": torch.bfloat16, "fp32": torch.float32, "fp64": torch.float64}[dtype]
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))
    return 2 * size**3, lambda: a @ b


def _copy_work(size: int, device: torch.device):
    source = torch.randn(size // 4, device=device)
    target = torch.empty_like(source)
    return 2 * size, lambda: target.copy_(source)


def _exponential_work(device: torch.device):
    if device.type == "cpu":
        x = torch.rand(1 << 16)
        y = torch.empty_like(x)
        return x.numel(), lambda: torch.exp(x, out=y)
    from benchmarks.exponentials import exponential_chain

    return exponential_chain(device)
