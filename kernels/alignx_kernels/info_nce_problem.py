"""What goes into and comes out of an implementation of InfoNCE; shared by the chunked one and the Triton one."""

from typing import NamedTuple

import torch

# Stands for "left out of the sums". Finite, so that no difference of two of them is NaN; exp of it minus anything real is 0.
LEFT_OUT = -1e30


def accumulator(dtype: torch.dtype) -> torch.dtype:
    """The dtype of sums and losses over inputs of `dtype`."""
    return torch.promote_types(dtype, torch.float32)


def waiting_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which gradients wait for the backward.

    The factor that keeps fp16 in range (1 / N, a loss scale) comes only then, so fp16 waits in fp32.
    """
    return torch.float32 if dtype == torch.float16 else dtype


class Inputs(NamedTuple):
    """Queries [N, D] and keys [M, D] share a dtype; the temperature has 0 dimensions and the accumulator's dtype."""

    queries_ND: torch.Tensor
    keys_MD: torch.Tensor
    temperature: torch.Tensor
    query_ids: torch.Tensor | None
    key_ids: torch.Tensor | None
    symmetric: bool


class Wanted(NamedTuple):
    """The gradients somebody will ask for; the others cost nothing."""

    queries: bool
    keys: bool
    temperature: bool


class Statistics(NamedTuple):
    """What a backward that computes similarities again wants to know of the forward, in the accumulator's dtype.

    Log-sums of the rows and, if symmetric, of the columns, in a unit of the implementation's own; 1 / |x| of queries and keys.
    """

    row_lse_N: torch.Tensor
    inverse_N: torch.Tensor
    inverse_M: torch.Tensor
    column_lse_N: torch.Tensor | None = None


class Forward(NamedTuple):
    """The loss of every row, its slope d loss_i / d temperature, and gradients where they were taken on the way.

    The gradients are those of the sum of the losses, in `waiting_dtype`; the rest has the accumulator's dtype. Entries nobody needs are
    None.
    """

    loss_N: torch.Tensor
    slope_N: torch.Tensor | None
    statistics: Statistics
    grad_queries_ND: torch.Tensor | None = None
    grad_keys_MD: torch.Tensor | None = None
