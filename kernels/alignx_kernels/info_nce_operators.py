"""InfoNCE as custom operators, opaque to `torch.compile` and deaf to autocast, with their autograd.

The work is in `info_nce_chunked` and `info_nce_triton`.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch.autograd.function import once_differentiable

from . import info_nce_chunked
from .checks import check_temperature_value
from .info_nce_problem import Forward, Inputs, Statistics, Wanted, accumulator, waiting_dtype
from .operators import differentiable, direct
from .reference import reduce_loss


class Call(NamedTuple):
    """The options of one call, in the order in which both operators take them."""

    symmetric: bool
    reduction: str
    wanted: Wanted
    impl: str

    @property
    def wants_vectors(self) -> bool:
        return self.wanted.queries or self.wanted.keys

    @property
    def computes_again(self) -> bool:
        """Whether the backward recomputes similarities.

        It need not in one direction under one common cotangent: the sweep of the forward gives the gradients up to that factor.
        """
        return self.wants_vectors and (self.symmetric or self.reduction == "none")

    def kept(self, result: Forward) -> list[torch.Tensor]:
        """What the backward needs: gradients or else statistics, and the slopes."""
        fields = list(result.statistics if self.computes_again else (result.grad_queries_ND, result.grad_keys_MD))
        if not self.wants_vectors:
            fields = []
        return [field for field in (*fields, result.slope_N) if field is not None]


def _forward(
    queries_ND: torch.Tensor,
    keys_MD: torch.Tensor,
    temperature: torch.Tensor,
    query_ids: torch.Tensor | None,
    key_ids: torch.Tensor | None,
    symmetric: bool,
    reduction: str,
    wanted: Sequence[bool],
    impl: str,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The reduced loss, and `Call.kept`. Gradients among the latter are those of the sum of the losses."""
    check_temperature_value(temperature)
    call = Call(symmetric, reduction, Wanted(*wanted), impl)
    inputs = Inputs(queries_ND, keys_MD, temperature, query_ids, key_ids, symmetric)
    with _without_autocast(keys_MD.device.type):
        result = _implementation(impl).forward(inputs, call.wanted, call.wants_vectors and not call.computes_again)
        return reduce_loss(result.loss_N, reduction), call.kept(result)


forward_operator = torch.library.custom_op("alignx_kernels::info_nce_forward", _forward, mutates_args=())
info_nce_forward = direct(forward_operator, _forward)


@forward_operator.register_fake
def _(queries_ND, keys_MD, temperature, query_ids, key_ids, symmetric, reduction, wanted, impl):
    call = Call(symmetric, reduction, Wanted(*wanted), impl)
    rows_N, rows_M = (tensor.new_empty(tensor.shape[0], dtype=accumulator(tensor.dtype)) for tensor in (queries_ND, keys_MD))
    statistics = Statistics(rows_N, rows_N.clone(), rows_M, rows_N.clone() if symmetric else None)
    slope_N = rows_N.clone() if call.wanted.temperature else None
    early = (_waiting(tensor) if want else None for tensor, want in zip((queries_ND, keys_MD), wanted, strict=False))
    return reduce_loss(rows_N, reduction).clone(), call.kept(Forward(rows_N, slope_N, statistics, *early))


def _gradients_again(
    queries_ND: torch.Tensor,
    keys_MD: torch.Tensor,
    temperature: torch.Tensor,
    query_ids: torch.Tensor | None,
    key_ids: torch.Tensor | None,
    statistics: list[torch.Tensor],
    cotangent: torch.Tensor,
    symmetric: bool,
    wanted: Sequence[bool],
    impl: str,
) -> list[torch.Tensor]:
    """Gradients of queries and keys as far as they are wanted.

    `statistics`: the fields of `Statistics`. `cotangent`: of every row, or the one of all.
    """
    inputs = Inputs(queries_ND, keys_MD, temperature, query_ids, key_ids, symmetric)
    with _without_autocast(keys_MD.device.type):
        cotangent_N = cotangent.expand(queries_ND.shape[0])
        gradients = _implementation(impl).backward(inputs, Statistics(*statistics), cotangent_N, Wanted(*wanted))
        return [gradient for gradient in gradients if gradient is not None]


backward_operator = torch.library.custom_op("alignx_kernels::info_nce_backward", _gradients_again, mutates_args=())
info_nce_backward = direct(backward_operator, _gradients_again)


@backward_operator.register_fake
def _(queries_ND, keys_MD, temperature, query_ids, key_ids, statistics, cotangent, symmetric, wanted, impl):
    return [_like(tensor) for tensor, want in zip((queries_ND, keys_MD), wanted, strict=False) if want]


def gradients(
    ctx, cotangent: torch.Tensor, kept: list[torch.Tensor], tensors: Sequence[torch.Tensor | None]
) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
    """Gradients at queries, keys and temperature, None where not wanted, from `Call.kept`.

    `tensors`: the inputs of the forward, used only where similarities are computed again.
    """
    call = ctx.call
    if call.reduction == "mean":
        cotangent = cotangent / ctx.num_queries
    grad_temperature = (kept.pop() * cotangent).sum() if call.wanted.temperature else None
    if call.computes_again:
        taken = info_nce_backward(*tensors, kept, cotangent, call.symmetric, call.wanted, call.impl)
    else:
        taken = [(gradient * cotangent).to(ctx.dtype) for gradient in kept]
    remaining = iter(taken)
    grad_queries = next(remaining) if call.wanted.queries else None
    return grad_queries, next(remaining) if call.wanted.keys else None, grad_temperature


def _setup_context(ctx, inputs, output):
    *tensors, symmetric, reduction, wanted, impl = inputs
    kept = output[1]
    ctx.mark_non_differentiable(*kept)
    ctx.set_materialize_grads(False)
    ctx.call = Call(symmetric, reduction, Wanted(*wanted), impl)
    ctx.num_kept, ctx.num_queries, ctx.dtype = len(kept), tensors[0].shape[0], tensors[0].dtype
    ctx.save_for_backward(*kept, *(tensors if ctx.call.computes_again else ()))


@once_differentiable
def _backward(ctx, cotangent, _):
    of_tensors: tuple[torch.Tensor | None, ...] = (None, None, None)
    if cotangent is not None:
        saved = ctx.saved_tensors  # read once: activation checkpointing allows no second time
        of_tensors = gradients(ctx, cotangent, list(saved[: ctx.num_kept]), saved[ctx.num_kept :])
    return *of_tensors, None, None, None, None, None, None


info_nce = differentiable(forward_operator, _forward, _backward, _setup_context)


def _without_autocast(device_type: str) -> AbstractContextManager:
    # Entered only where it changes something: it takes as long as a launch.
    return torch.autocast(device_type, enabled=False) if torch.is_autocast_enabled(device_type) else nullcontext()


def _like(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def _waiting(tensor: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(tensor, dtype=waiting_dtype(tensor.dtype), memory_format=torch.contiguous_format)


def _implementation(impl: str):
    if impl == "chunked":
        return info_nce_chunked
    from . import info_nce_triton  # not above: machines without Triton import this file too

    return info_nce_triton
