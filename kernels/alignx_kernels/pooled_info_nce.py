"""Span pooling and InfoNCE as one operator: between forward and backward only what the backward needs is kept."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.autograd.function import once_differentiable

from . import checks, dispatch
from .info_nce import as_scalar, check_options, info_nce_loss
from .info_nce_operators import Call, gradients, info_nce_forward
from .info_nce_problem import Wanted
from .operators import differentiable
from .span_mean import span_mean, span_mean_backward, span_mean_forward


def pooled_info_nce_loss(
    hidden_TD: torch.Tensor,
    source_spans_N2: torch.Tensor,
    target_spans_M2: torch.Tensor,
    *,
    temperature: float | torch.Tensor = 0.1,
    symmetric: bool = False,
    query_ids: torch.Tensor | None = None,
    key_ids: torch.Tensor | None = None,
    reduction: str = "mean",
    impl: str | None = None,
) -> torch.Tensor:
    """`info_nce_loss` of the means of `hidden_TD` over source spans (queries) and target spans (keys).

    hidden_TD: [T, D] packed tokens. source_spans_N2 [N, 2] and target_spans_M2 [M, 2]: (start, end) in tokens, end exclusive, all
    disjoint; target span i belongs to source span i, M >= N. The options and the result are those of `info_nce_loss`. In one
    direction without reduction "none" only the gradients at the means survive the forward, else the means.

    Raises: ValueError for wrong shapes, dtypes, devices, spans or options.
    Source: AlignX (arXiv 2509.24338), L_ctr.
    """
    checks.check_matrix("hidden_TD", hidden_TD)
    checks.check_spans("source_spans_N2", source_spans_N2, hidden_TD)
    checks.check_spans("target_spans_M2", target_spans_M2, hidden_TD)
    checks.check_same_device(source_spans_N2=source_spans_N2, target_spans_M2=target_spans_M2)
    n = source_spans_N2.shape[0]
    check_options(n, target_spans_M2.shape[0], temperature, query_ids, key_ids, reduction)
    on_device = temperature if isinstance(temperature, torch.Tensor) else None
    checks.check_same_device(hidden_TD=hidden_TD, temperature=on_device, query_ids=query_ids, key_ids=key_ids)
    chosen = dispatch.choose(impl, hidden_TD)
    spans_S2 = torch.cat([source_spans_N2, target_spans_M2])
    if chosen == "reference":
        means_SD = span_mean(hidden_TD, spans_S2, impl=chosen)
        options: dict[str, Any] = {"temperature": temperature, "symmetric": symmetric, "query_ids": query_ids, "key_ids": key_ids}
        return info_nce_loss(means_SD[:n], means_SD[n:], **options, reduction=reduction, impl=chosen)
    temperature = as_scalar(temperature, hidden_TD)
    enabled = torch.is_grad_enabled()
    of_means = enabled and hidden_TD.requires_grad
    wanted = Wanted(of_means, of_means, enabled and temperature.requires_grad)
    return _pooled(hidden_TD, spans_S2, temperature, query_ids, key_ids, n, symmetric, reduction, wanted, chosen)


def _forward(
    hidden_TD: torch.Tensor,
    spans_S2: torch.Tensor,
    temperature: torch.Tensor,
    query_ids: torch.Tensor | None,
    key_ids: torch.Tensor | None,
    num_queries: int,
    symmetric: bool,
    reduction: str,
    wanted: Sequence[bool],
    impl: str,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The loss, and `Call.kept`; where the backward computes similarities again, the means follow."""
    call = Call(symmetric, reduction, Wanted(*wanted), impl)
    means_SD = span_mean_forward(hidden_TD, spans_S2, impl)
    queries_ND, keys_MD = means_SD[:num_queries], means_SD[num_queries:]
    loss, kept = info_nce_forward(queries_ND, keys_MD, temperature, query_ids, key_ids, *call)
    return loss, [*kept, means_SD] if call.computes_again else kept


_operator = torch.library.custom_op("alignx_kernels::pooled_info_nce", _forward, mutates_args=())


@_operator.register_fake
def _(hidden_TD, spans_S2, temperature, query_ids, key_ids, num_queries, symmetric, reduction, wanted, impl):
    call = Call(symmetric, reduction, Wanted(*wanted), impl)
    means_SD = hidden_TD.new_empty(spans_S2.shape[0], hidden_TD.shape[1])
    queries_ND, keys_MD = means_SD[:num_queries], means_SD[num_queries:]
    loss, kept = info_nce_forward(queries_ND, keys_MD, temperature, query_ids, key_ids, *call)
    return loss, [*kept, means_SD] if call.computes_again else kept


def _setup_context(ctx, inputs, output):
    hidden_TD, spans_S2, temperature, query_ids, key_ids, n, symmetric, reduction, wanted, impl = inputs
    call = Call(symmetric, reduction, Wanted(*wanted), impl)
    kept = output[1]
    ctx.mark_non_differentiable(*kept)
    ctx.set_materialize_grads(False)
    ctx.call, ctx.num_queries, ctx.dtype, ctx.num_tokens = call, n, hidden_TD.dtype, hidden_TD.shape[0]
    again = (temperature, query_ids, key_ids) if call.computes_again else ()
    ctx.save_for_backward(spans_S2, *kept, *again)


@once_differentiable
def _backward(ctx, cotangent, _):
    if cotangent is None:
        return (None,) * 10
    spans_S2, *saved = ctx.saved_tensors
    tensors: tuple[torch.Tensor | None, ...] = ()
    if ctx.call.computes_again:
        *saved, means_SD, temperature, query_ids, key_ids = saved
        tensors = (means_SD[: ctx.num_queries], means_SD[ctx.num_queries :], temperature, query_ids, key_ids)
    grad_queries, grad_keys, grad_temperature = gradients(ctx, cotangent, saved, tensors)
    grad_hidden = None
    if grad_queries is not None and grad_keys is not None:
        grad_hidden = span_mean_backward(torch.cat([grad_queries, grad_keys]), spans_S2, ctx.num_tokens, ctx.call.impl)
    return grad_hidden, None, grad_temperature, *[None] * 7


_pooled = differentiable(_operator, _forward, _backward, _setup_context)
