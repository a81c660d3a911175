"""A self-test in seconds: every operator, forward and backward, against its reference in fp64 on ragged sizes.

An implementation passes where its largest error is at most that of the reference in the same dtype, plus `SLACK` and half an ulp of the
dtype, all relative to the largest true value of each tensor.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from .common.dispatch import choose_implementation
from .info_nce import info_nce_loss
from .language_matching import language_matching_loss
from .pooled_info_nce import pooled_info_nce_loss
from .span_mean import span_mean

SLACK = 2e-6
# Unsorted, ragged, with a single token and with gaps; the first three are sources, the rest targets.
SPANS = [(40, 57), (3, 4), (4, 29), (57, 60), (29, 37), (61, 62), (0, 2)]
NUM_SOURCES = 3
NUM_TOKENS = 63


@dataclass(frozen=True)
class Problem:
    """One call: the tensors that get gradients, and the call as a function of them and of the implementation."""

    name: str
    leaves: Sequence[torch.Tensor]
    call: Callable[[Sequence[torch.Tensor], str | None], torch.Tensor]


@dataclass(frozen=True)
class Outcome:
    """The largest error over outputs and gradients, as a share of what is allowed."""

    name: str
    implementation: str
    dtype: torch.dtype
    error: float
    share: float

    @property
    def passed(self) -> bool:
        return self.share <= 1  # False for NaN too

    def __str__(self) -> str:
        verdict = "ok" if self.passed else "FAILED"
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.name:32} {self.implementation:9} {dtype:9} largest error {self.error:.1e}  {verdict}"


def problems(device: torch.device) -> list[Problem]:
    """Random problems of fixed seeds, in fp64."""
    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(device)

    def integers(below: int, length: int) -> torch.Tensor:
        return torch.randint(below, (length,), generator=generator).to(device)

    spans_S2 = torch.tensor(SPANS, device=device)
    sources_N2, targets_M2 = spans_S2[:NUM_SOURCES], spans_S2[NUM_SOURCES:]
    query_ids, key_ids, languages_M = integers(9, 37), integers(9, 53), integers(3, 23)
    temperature = torch.tensor(0.1, dtype=torch.float64, device=device)

    def info_nce(symmetric: bool) -> Callable[[Sequence[torch.Tensor], str | None], torch.Tensor]:
        return lambda x, impl: info_nce_loss(
            x[0], x[1], temperature=x[2], symmetric=symmetric, query_ids=query_ids, key_ids=key_ids, impl=impl
        )

    return [
        Problem("span_mean", [normal(NUM_TOKENS, 37)], lambda x, impl: span_mean(x[0], spans_S2, impl=impl)),
        Problem("info_nce, one direction", [normal(37, 19), normal(53, 19), temperature], info_nce(symmetric=False)),
        Problem("info_nce, both directions", [normal(37, 19), normal(53, 19), temperature], info_nce(symmetric=True)),
        Problem(
            "pooled_info_nce",
            [normal(NUM_TOKENS, 37), temperature],
            lambda x, impl: pooled_info_nce_loss(x[0], sources_N2, targets_M2, temperature=x[1], impl=impl),
        ),
        Problem(
            "language_matching",
            [normal(23, 17), normal(20, 34), normal(20, 34), normal(2, 20)],
            lambda x, impl: language_matching_loss(x[0], languages_M, x[1], x[2], x[3], reduction="none", impl=impl),
        ),
    ]


def run(device: torch.device, dtype: torch.dtype) -> list[Outcome]:
    """Check the implementation that `impl=None` takes on `device` for inputs of `dtype`."""
    return [_check(problem, dtype) for problem in problems(device)]


def _check(problem: Problem, dtype: torch.dtype) -> Outcome:
    leaves = [leaf.to(dtype) for leaf in problem.leaves]
    truth = _output_and_gradients(problem, leaves, torch.float64, "reference")
    eager = _output_and_gradients(problem, leaves, dtype, "reference")
    ours = _output_and_gradients(problem, leaves, dtype, None)
    errors, shares = [], []
    for true, same_dtype, got in zip(truth, eager, ours, strict=True):
        scale = true.abs().max()
        allowed = (same_dtype - true).abs().max() / scale + SLACK + torch.finfo(dtype).eps / 2
        errors.append((got - true).abs().max() / scale)
        shares.append(errors[-1] / allowed)
    # `Tensor.max` keeps a NaN, where Python's `max` may drop it.
    error, share = (torch.stack(values).max().item() for values in (errors, shares))
    return Outcome(problem.name, choose_implementation(None, *leaves), dtype, error, share)


def _output_and_gradients(
    problem: Problem, leaves: Sequence[torch.Tensor], dtype: torch.dtype, impl: str | None
) -> list[torch.Tensor]:
    """In fp64, computed in `dtype`, under a random cotangent of a fixed seed."""
    leaves = [leaf.to(dtype).detach().requires_grad_() for leaf in leaves]
    output = problem.call(leaves, impl)
    generator = torch.Generator().manual_seed(1)
    cotangent = torch.randn(output.shape, generator=generator, dtype=torch.float64).to(output)
    return [tensor.detach().double() for tensor in (output, *torch.autograd.grad(output, leaves, cotangent))]
