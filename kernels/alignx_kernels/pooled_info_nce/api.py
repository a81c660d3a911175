"""Span pooling and InfoNCE as one operator: between forward and backward only what the backward needs is kept.

It has no kernels of its own: it runs those of `span_mean` and of `info_nce`, one after the other.

Shape legend: T packed tokens, D hidden width, N source spans, M target spans, S = N + M.
"""

from collections.abc import Sequence

import torch
from torch.autograd.function import once_differentiable

from ..common import checks
from ..common.dispatch import choose_implementation
from ..common.private_apis import dispatcher_must_see, refuse_second_derivative
from ..info_nce import api as info_nce
from ..info_nce.problem import Options, Wanted
from ..span_mean import api as pooling
from . import reference

# What the operator takes: hidden states, spans, temperature, ids of queries and keys, number of queries, the fields of `Options`.
OperatorInputs = tuple[
    torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None, int, bool, str, Sequence[bool], str
]


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
    disjoint; target span i belongs to source span i, M >= N. The options and the result are those of `info_nce_loss`. With
    reduction "none" the means survive the forward, else only the gradients at them.

    Raises: ValueError for wrong shapes, dtypes, devices, spans or options.
    Source: AlignX (arXiv 2509.24338), L_ctr.
    """
    _check(hidden_TD, source_spans_N2, target_spans_M2, temperature, query_ids, key_ids, reduction)
    impl = choose_implementation(impl, hidden_TD)
    if impl == "reference":
        return reference.pooled_info_nce_loss(
            hidden_TD,
            source_spans_N2,
            target_spans_M2,
            temperature=temperature,
            symmetric=symmetric,
            query_ids=query_ids,
            key_ids=key_ids,
            reduction=reduction,
        )
    spans_S2 = torch.cat([source_spans_N2, target_spans_M2])
    if impl == "triton" and info_nce.takes_autocast_dtype(hidden_TD):  # the means are cast, in between
        means_SD, n = pooling.span_mean(hidden_TD, spans_S2, impl=impl), source_spans_N2.shape[0]
        return info_nce.info_nce_loss(
            means_SD[:n],
            means_SD[n:],
            temperature=temperature,
            symmetric=symmetric,
            query_ids=query_ids,
            key_ids=key_ids,
            reduction=reduction,
            impl=impl,
        )
    temperature = info_nce.as_scalar(temperature, hidden_TD)
    wanted = info_nce.gradients_wanted(hidden_TD, hidden_TD, temperature)
    inputs = (
        hidden_TD,
        spans_S2,
        temperature,
        query_ids,
        key_ids,
        source_spans_N2.shape[0],
        symmetric,
        reduction,
        wanted,
        impl,
    )
    loss: torch.Tensor
    if torch.compiler.is_compiling():  # torch.compile refuses an autograd.Function that is given one tensor twice (equal ids)
        loss, _ = forward_operator(*inputs)
    else:
        loss = PooledInfoNCE.apply(*inputs)  # type: ignore[no-untyped-call]  # PyTorch leaves `apply` untyped
    return loss


def _check(
    hidden_TD: torch.Tensor,
    source_spans_N2: torch.Tensor,
    target_spans_M2: torch.Tensor,
    temperature: float | torch.Tensor,
    query_ids: torch.Tensor | None,
    key_ids: torch.Tensor | None,
    reduction: str,
) -> None:
    checks.check_matrix("hidden_TD", hidden_TD)
    checks.check_spans("source_spans_N2", source_spans_N2, hidden_TD)
    checks.check_spans("target_spans_M2", target_spans_M2, hidden_TD)
    checks.check_same_device(source_spans_N2=source_spans_N2, target_spans_M2=target_spans_M2)
    n, m = source_spans_N2.shape[0], target_spans_M2.shape[0]
    info_nce.check_options(n, m, temperature, query_ids, key_ids, reduction)
    given = temperature if isinstance(temperature, torch.Tensor) else None
    checks.check_same_device(hidden_TD=hidden_TD, temperature=given, query_ids=query_ids, key_ids=key_ids)


def forward_pass(
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
    """The loss, and `Options.saved`; where the backward computes the gradients, the means follow."""
    options = Options(symmetric, reduction, Wanted(*wanted), impl)
    means_SD = pooling.forward_operator(hidden_TD, spans_S2, impl)
    inputs = (means_SD[:num_queries], means_SD[num_queries:], temperature, query_ids, key_ids, *options)
    must_see = dispatcher_must_see(inputs)
    loss, saved = info_nce.forward_operator(*inputs) if must_see else info_nce.forward_pass(*inputs)
    return loss, [*saved, means_SD] if options.backward_computes_gradients else saved


# The same function as an operator, for calls that the dispatcher must see. Its parts have fake implementations, so it has one too.
forward_operator = torch.library.custom_op("alignx_kernels::pooled_info_nce", forward_pass, mutates_args=())
forward_operator.register_fake(forward_pass)


class SavedContext(info_nce.SavedContext):
    """What `PooledInfoNCE` hands from forward to backward."""

    num_queries: int
    num_tokens: int


class PooledInfoNCE(torch.autograd.Function):
    """Autograd of the loss: that of `InfoNCE` at the means, then that of `SpanMean`."""

    @staticmethod
    def forward(ctx: SavedContext, *inputs: *OperatorInputs) -> torch.Tensor:
        loss, saved = forward_operator(*inputs) if dispatcher_must_see(inputs) else forward_pass(*inputs)
        PooledInfoNCE.save(ctx, inputs, (loss, saved))
        return loss

    @staticmethod
    def save(ctx: SavedContext, inputs: OperatorInputs, output: tuple[torch.Tensor, list[torch.Tensor]]) -> None:
        hidden_TD, spans_S2, temperature, query_ids, key_ids, num_queries, symmetric, reduction, wanted, impl = inputs
        saved = output[1]
        ctx.mark_non_differentiable(*saved)
        ctx.set_materialize_grads(False)
        ctx.options = Options(symmetric, reduction, Wanted(*wanted), impl)
        ctx.num_queries, ctx.dtype, ctx.num_tokens = num_queries, hidden_TD.dtype, hidden_TD.shape[0]
        tensors = (temperature, query_ids, key_ids) if ctx.options.backward_computes_gradients else ()
        ctx.save_for_backward(spans_S2, *saved, *tensors)

    @staticmethod
    def backward(ctx: SavedContext, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        return refuse_second_derivative(PooledInfoNCE.backward_once(ctx, *cotangents))

    @staticmethod
    @once_differentiable
    def backward_once(ctx: SavedContext, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        cotangent = cotangents[0]  # the operator has a second output, whose tensors are not differentiable
        if cotangent is None:
            return (None,) * 10
        spans_S2, *saved = ctx.saved_tensors
        tensors: tuple[torch.Tensor, ...] = ()
        if ctx.options.backward_computes_gradients:
            *saved, means_SD, temperature, query_ids, key_ids = saved
            tensors = (means_SD[: ctx.num_queries], means_SD[ctx.num_queries :], temperature, query_ids, key_ids)
        grad_queries, grad_keys, grad_temperature = info_nce.input_gradients(ctx, cotangent, saved, tensors)
        grad_hidden = None
        if grad_queries is not None and grad_keys is not None:
            grad_SD = torch.cat([grad_queries, grad_keys])
            grad_hidden = pooling.backward_operator(grad_SD, spans_S2, ctx.num_tokens, ctx.options.impl)
        return grad_hidden, None, grad_temperature, None, None, None, None, None, None, None


# The same autograd for the operator itself, which `torch.compile` sees in place of `PooledInfoNCE`.
forward_operator.register_autograd(PooledInfoNCE.backward_once, setup_context=PooledInfoNCE.save)
