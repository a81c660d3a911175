"""What is measured: the problems of each family, most important first, with their inputs, their fp64 truth and their floor.

Shape legend: N queries, M keys or sentences, D hidden width, I classifier width, T packed tokens, S spans.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
from alignx_kernels.info_nce.tiles import keeps_all

from benchmarks import truth
from benchmarks.rates import Rates

Tensors = dict[str, torch.Tensor]
AUTOCAST = "fp32-autocast"
"""fp32 inputs, the loss called under bf16 autocast: what pooling and normalisation layers hand out in mixed precision."""
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32, AUTOCAST: torch.float32}
# A relative error (norm of the difference over the norm of the truth) above this is a wrong answer, not rounding. The widest of the
# honest implementations round logits of size 10 to bf16, which moves a probability by 3 %.
TOLERANCES = {"bf16": {"output": 1e-2, "gradients": 6e-2}, "fp32": {"output": 1e-3, "gradients": 5e-3}}
TOLERANCES[AUTOCAST] = TOLERANCES["bf16"]
TEMPERATURE = 0.1


@dataclass(frozen=True)
class InfoNce:
    """Mean cosine InfoNCE of N queries against M keys, temperature 0.1, in one direction or both."""

    n: int
    m: int
    d: int
    dtype: str = "bf16"
    symmetric: bool = False

    family: ClassVar[str] = "info_nce"
    phases: ClassVar[tuple[str, ...]] = ("forward", "forward+backward")

    @property
    def name(self) -> str:
        return f"{self.n}x{self.m}x{self.d}-{'both' if self.symmetric else 'one'}-{self.dtype}"

    @property
    def product(self) -> int:
        """U, the floating-point operations of one similarity matrix."""
        return 2 * self.n * self.m * self.d

    def work(self, phase: str) -> tuple[int, str]:
        """U for the loss, 3U with gradients (S, dQ, dK); 4U in both directions where N x M is too large to be kept (S once more)."""
        again = self.symmetric and not keeps_all(self.n, self.m, DTYPES[self.dtype])
        return self.product * (1 if phase == "forward" else 4 if again else 3), "FLOP"

    def floor(self, phase: str, rates: Rates) -> float:
        return self.work(phase)[0] / rates.matmul(self.dtype)

    def truth_work(self) -> int:
        """fp64 operations of `truth`: similarities twice, dQ, dK."""
        return 4 * self.product

    def smaller(self) -> "InfoNce | None":
        """The same problem with half the rows and columns; None where nothing is gained."""
        if self.n < 1024:
            return None
        return InfoNce(self.n // 2, self.m // 2, self.d, self.dtype, self.symmetric)

    def inputs(self, device: torch.device) -> Tensors:
        """Vectors around 64 shared centres, as sentences around topics: a softmax that is neither flat nor a single peak."""
        generator = torch.Generator(device).manual_seed(self.n + self.d)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, device=device, generator=generator, dtype=DTYPES[self.dtype])

        centres = normal(64, self.d)
        topics = torch.randint(64, (self.m,), device=device, generator=generator)
        queries = centres[topics[: self.n]].add_(normal(self.n, self.d))
        keys = centres[topics].add_(normal(self.m, self.d))
        keys[: self.n].add_(queries, alpha=0.5)
        return {"queries": queries, "keys": keys}

    def truth(self, inputs: Tensors) -> Tensors:
        return truth.info_nce(**inputs, temperature=TEMPERATURE, symmetric=self.symmetric)


@dataclass(frozen=True)
class LanguageMatching:
    """The pairwise classifier over all M^2 pairs of M = 2N sentences in 10 languages, width 128."""

    m: int
    d: int
    dtype: str = "bf16"
    width: int = 128

    family: ClassVar[str] = "language_matching"
    phases: ClassVar[tuple[str, ...]] = ("forward", "forward+backward")

    @property
    def name(self) -> str:
        return f"{self.m}x{self.d}-{self.dtype}"

    def work(self, phase: str) -> tuple[int, str]:
        """One exponential for every pair and classifier column, and one more to have it again in backward."""
        return self.m**2 * self.width * (1 if phase == "forward" else 2), "exp"

    def floor(self, phase: str, rates: Rates) -> float:
        return self.work(phase)[0] / rates.exponentials()

    def truth_work(self) -> int:
        """fp64 operations of `truth`, an exponential counted as ten."""
        return 60 * self.m**2 * self.width

    def smaller(self) -> "LanguageMatching | None":
        return LanguageMatching(self.m // 2, self.d, self.dtype, self.width) if self.m >= 256 else None

    def inputs(self, device: torch.device) -> Tensors:
        generator = torch.Generator(device).manual_seed(self.m + self.d)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, device=device, generator=generator)

        return {
            "embeddings": normal(self.m, self.d).to(DTYPES[self.dtype]),
            "gate": normal(self.width, 2 * self.d) / self.d**0.5,
            "up": normal(self.width, 2 * self.d) / self.d**0.5,
            "down": normal(2, self.width) / self.width**0.5,
            "languages": torch.randint(10, (self.m,), device=device, generator=generator),
        }

    def truth(self, inputs: Tensors) -> Tensors:
        return truth.language_matching(**inputs)


@dataclass(frozen=True)
class SpanMean:
    """Means of S ragged spans that cover three quarters of T packed tokens."""

    t: int
    s: int
    d: int
    dtype: str = "bf16"

    family: ClassVar[str] = "span_mean"
    phases: ClassVar[tuple[str, ...]] = ("forward", "backward")

    @property
    def name(self) -> str:
        return f"{self.t}x{self.d}-{self.s}spans-{self.dtype}"

    @cached_property
    def spans(self) -> torch.Tensor:
        """[S, 2]: lengths between half and one and a half of the mean, gaps between them."""
        generator = torch.Generator().manual_seed(self.s)
        room = self.t // self.s
        length_S = torch.randint(room // 2, room + 1, (self.s,), generator=generator)
        start_S = torch.arange(self.s) * room
        return torch.stack([start_S, start_S + length_S], 1)

    def work(self, phase: str) -> tuple[int, str]:
        """Bytes: every token of a span read and every mean written; backward reads the means' gradient and writes all tokens."""
        size = DTYPES[self.dtype].itemsize * self.d
        covered = int((self.spans[:, 1] - self.spans[:, 0]).sum())
        return size * (self.s + (covered if phase == "forward" else self.t)), "B"

    def floor(self, phase: str, rates: Rates) -> float:
        return self.work(phase)[0] / rates.copy()

    def truth_work(self) -> int:
        return 2 * self.t * self.d

    def smaller(self) -> None:
        return None

    def inputs(self, device: torch.device) -> Tensors:
        generator = torch.Generator(device).manual_seed(self.t)
        hidden = torch.randn(self.t, self.d, device=device, generator=generator, dtype=DTYPES[self.dtype])
        return {"hidden": hidden, "spans": self.spans.to(device)}

    def truth(self, inputs: Tensors) -> Tensors:
        means_SD = torch.empty(self.s, self.d, dtype=DTYPES[self.dtype], device=inputs["hidden"].device)
        return truth.span_mean(**inputs, cotangent=cotangent(means_SD))


@dataclass(frozen=True)
class PooledInfoNce:
    """`InfoNce` of N pairs of spans in T packed tokens, temperature 0.1: from hidden states to their gradient."""

    t: int
    n: int
    d: int
    dtype: str = "bf16"
    symmetric: bool = False

    family: ClassVar[str] = "pooled_info_nce"
    phases: ClassVar[tuple[str, ...]] = ("forward", "forward+backward")

    @property
    def name(self) -> str:
        return f"{self.t}-{self.n}x{self.n}x{self.d}-{'both' if self.symmetric else 'one'}-{self.dtype}"

    @property
    def pooling(self) -> SpanMean:
        return SpanMean(self.t, 2 * self.n, self.d, self.dtype)

    @property
    def contrast(self) -> InfoNce:
        return InfoNce(self.n, self.n, self.d, self.dtype, self.symmetric)

    def work(self, phase: str) -> tuple[int, str]:
        """That of InfoNCE; pooling moves bytes."""
        return self.contrast.work(phase)

    def floor(self, phase: str, rates: Rates) -> float:
        """Both floors, one after the other."""
        passes = ("forward",) if phase == "forward" else ("forward", "backward")
        return self.contrast.floor(phase, rates) + sum(self.pooling.floor(one, rates) for one in passes)

    def truth_work(self) -> int:
        return self.contrast.truth_work() + self.pooling.truth_work()

    def smaller(self) -> None:
        return None

    def inputs(self, device: torch.device) -> Tensors:
        """Tokens scattered around the vectors of `InfoNce`, each around that of its span."""
        hidden = self.pooling.inputs(device)["hidden"]
        vectors = torch.stack(list(self.contrast.inputs(device).values()), 1).flatten(0, 1)
        spans = self.pooling.spans.to(device)
        hidden[: self.t - self.t % (2 * self.n)].unflatten(0, (2 * self.n, -1)).add_(vectors[:, None])
        return {"hidden": hidden, "sources": spans[0::2], "targets": spans[1::2]}

    def truth(self, inputs: Tensors) -> Tensors:
        return truth.pooled_info_nce(**inputs, temperature=TEMPERATURE, symmetric=self.symmetric)


Problem = InfoNce | LanguageMatching | SpanMean | PooledInfoNce


def cotangent(output: torch.Tensor) -> torch.Tensor:
    """The gradient sent back: 1 for a scalar loss, fixed random numbers else."""
    if output.dim() == 0:
        return torch.ones_like(output)
    generator = torch.Generator(output.device).manual_seed(1)
    return torch.randn(output.shape, device=output.device, generator=generator).to(output.dtype)


def _both(n: int, d: int, dtype: str = "bf16") -> list[InfoNce]:
    return [InfoNce(n, n, d, dtype, symmetric) for symmetric in (False, True)]


def _each(make: Callable[..., list[InfoNce]], sizes: list[tuple[int, int]]) -> list[InfoNce]:
    return [problem for n, d in sizes for problem in make(n, d)]


# The chunked path's own size, and ragged small ones that a CPU does in moments.
CPU = [
    InfoNce(8192, 8192, 256, "fp32"),
    *_both(1000, 192, "fp32"),
    InfoNce(500, 900, 96, "bf16"),
    InfoNce(500, 500, 96, AUTOCAST, symmetric=True),
    LanguageMatching(200, 96, "fp32"),
    SpanMean(6000, 100, 256, "fp32"),
    PooledInfoNce(20000, 500, 192, "fp32"),
]
GPU = [
    *_each(_both, [(65536, 4096), (4096, 4096), (16384, 4096), (65536, 1024), (65536, 2048), (131072, 4096)]),
    *_each(_both, [(2048, 4096), (1024, 4096), (512, 4096), (2048, 1024), (512, 1024)]),
    *_each(_both, [(65536, 768), (65536, 512), (16384, 768)]),
    InfoNce(16384, 65536, 4096),
    InfoNce(10007, 30011, 4096),
    InfoNce(10007, 30011, 768),
    InfoNce(16383, 16383, 768, symmetric=True),
    *_both(16384, 768, AUTOCAST),
    *_both(65536, 1024, AUTOCAST),
    *(LanguageMatching(2 * pairs, 4096) for pairs in (4096, 512, 1024, 2048, 8192)),
    *(SpanMean(131072, spans, 4096) for spans in (4096, 1024)),
    *(PooledInfoNce(131072, 2048, 4096, symmetric=symmetric) for symmetric in (False, True)),
]
# The rest of the grid.
FULL = [
    *_each(_both, [(n, d) for n in (4096, 8192, 16384, 32768, 131072) for d in (1024, 2048) if (n, d) not in [(65536, 1024)]]),
    *_each(_both, [(8192, 4096), (32768, 4096), (1024, 1024)]),
    *_both(4096, 1024, "fp32"),
    LanguageMatching(1024, 1024),
    SpanMean(32768, 1024, 2048),
    PooledInfoNce(32768, 512, 2048),
]


def problems(family: str, *, on_gpu: bool, full: bool) -> list[Problem]:
    """The family's problems for this machine, most important first."""
    chosen = (GPU + FULL if full else GPU) if on_gpu else CPU
    return [problem for problem in chosen if problem.family == family]
