"""What goes into and comes out of an implementation of InfoNCE; shared by the chunked one and the Triton one.

Shape legend: N queries, M keys (M >= N), D hidden width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch

# Stands for "left out of the sums". Finite, so that no difference of two of them is NaN; exp of it minus anything real is 0.
LEFT_OUT = -1e30


def accumulator_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums and losses over inputs of `dtype`."""
    return torch.promote_types(dtype, torch.float32)


def saved_gradient_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype of gradients that the forward computes and saves for the backward.

    Only the backward knows the factor that keeps fp16 in range (1 / N, a loss scale), so gradients of fp16 are saved in fp32.
    """
    return torch.float32 if dtype == torch.float16 else dtype


def reduce_loss(loss_N: torch.Tensor, reduction: str) -> torch.Tensor:
    """Apply `reduction` ("mean", "sum" or "none") to one loss per row."""
    return loss_N.mean() if reduction == "mean" else loss_N.sum() if reduction == "sum" else loss_N


class Inputs(NamedTuple):
    """Queries [N, D] and keys [M, D] share a dtype; the temperature has 0 dimensions and the accumulator's dtype."""

    queries_ND: torch.Tensor
    keys_MD: torch.Tensor
    temperature: torch.Tensor
    query_ids: torch.Tensor | None
    key_ids: torch.Tensor | None
    symmetric: bool


class Wanted(NamedTuple):
    """The gradients that a backward will ask for; the others cost nothing."""

    queries: bool
    keys: bool
    temperature: bool


class Statistics(NamedTuple):
    """What gradients under one cotangent per row need of the forward, in the accumulator's dtype.

    Log-sums of the rows and, if symmetric, of the columns, in a unit of the implementation's own; 1 / |x| of queries and keys. Where the
    similarities of all rows are kept: those of the positives, and `kept_NX`, all of them in a form of the implementation's own.
    """

    row_lse_N: torch.Tensor
    inverse_N: torch.Tensor
    inverse_M: torch.Tensor
    column_lse_N: torch.Tensor | None = None
    positive_N: torch.Tensor | None = None
    kept_NX: torch.Tensor | None = None

    @staticmethod
    def of(tensors: Sequence[torch.Tensor], symmetric: bool) -> "Statistics":
        """From `Options.saved`, which leaves out what is None."""
        row_lse_N, inverse_N, inverse_M, *others = tensors
        column_lse_N = others.pop(0) if symmetric else None
        positive_N, kept_NX = others if others else (None, None)
        return Statistics(row_lse_N, inverse_N, inverse_M, column_lse_N, positive_N, kept_NX)


class ForwardResult(NamedTuple):
    """The loss of every row, its slope d loss_i / d temperature, and gradients where the forward computes them.

    Gradients and slopes are times `Options.share`; the gradients have `saved_gradient_dtype`, the rest the accumulator's dtype. What
    nobody asked for is None.
    """

    loss_N: torch.Tensor
    slope_N: torch.Tensor | None
    statistics: Statistics
    grad_queries_ND: torch.Tensor | None = None
    grad_keys_MD: torch.Tensor | None = None


class Options(NamedTuple):
    """The options of one call, in the order in which the operators take them."""

    symmetric: bool
    reduction: str
    wanted: Wanted
    impl: str

    @property
    def wants_vectors(self) -> bool:
        return self.wanted.queries or self.wanted.keys

    @property
    def backward_computes_gradients(self) -> bool:
        """Under one cotangent per row; under one common cotangent the forward gives the gradients up to that factor."""
        return self.wants_vectors and self.reduction == "none"

    @property
    def forward_computes_gradients(self) -> bool:
        return self.wants_vectors and not self.backward_computes_gradients

    def share(self, num_queries: int) -> float:
        """d loss / d loss_i."""
        return 1 / num_queries if self.reduction == "mean" else 1.0

    def saved(self, result: ForwardResult) -> list[torch.Tensor]:
        """What the backward needs: gradients or else statistics, then the slopes."""
        tensors: list[torch.Tensor | None] = []
        if self.backward_computes_gradients:
            tensors += result.statistics
        elif self.wants_vectors:
            tensors += [result.grad_queries_ND, result.grad_keys_MD]
        return [tensor for tensor in (*tensors, result.slope_N) if tensor is not None]
