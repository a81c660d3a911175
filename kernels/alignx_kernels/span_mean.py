"""Mean of hidden states over spans of packed tokens: door, autograd, and the path without a GPU."""

import torch

from . import reference
from .checks import check_matrix, check_span_values, check_spans
from .dispatch import choose


def span_mean(hidden_TD: torch.Tensor, spans_S2: torch.Tensor, *, impl: str | None = None) -> torch.Tensor:
    """Mean of `hidden_TD[start:end]` for every row (start, end) of `spans_S2`; sums in fp32 (fp64 for fp64).

    hidden_TD: [T, D] packed tokens, any strides; bf16, fp16, fp32, or fp64. spans_S2: [S, 2] int32 or int64, in any order,
    disjoint, on the same device or in CPU memory. Returns [S, D] in the dtype of `hidden_TD`. Spans get no gradient.

    Spans in CPU memory are checked at every call. Spans on a GPU are never read by the host: there an empty or out-of-range span
    gives a row of NaN, and a token that two spans share gets a gradient of NaN. No access leaves `hidden_TD` in either case. (Only
    fp64, and other implementations than "triton", copy them to the host, and wait for it.)

    Raises: ValueError for a wrong shape, dtype or device, for an `impl` that cannot run, and for bad spans in CPU memory.
    Source: AlignX (arXiv 2509.24338), the sentence representations of L_ctr and L_lam.
    """
    check_matrix("hidden_TD", hidden_TD)
    check_spans("spans_S2", spans_S2, hidden_TD)
    impl = choose(impl, hidden_TD)
    if impl == "reference":
        check_span_values("spans_S2", spans_S2.cpu(), hidden_TD.shape[0])
        return reference.span_mean(hidden_TD, spans_S2)
    return span_mean_forward(hidden_TD, spans_S2, impl)


@torch.library.custom_op("alignx_kernels::span_mean", mutates_args=())
def span_mean_forward(hidden_TD: torch.Tensor, spans_S2: torch.Tensor, impl: str) -> torch.Tensor:
    """`span_mean` after validation of shapes; `impl` is "triton" or "chunked"."""
    spans_S2 = _checked_spans(spans_S2, hidden_TD.shape[0], hidden_TD.device, impl)
    if impl == "triton":
        from .span_mean_triton import forward

        return forward(hidden_TD, spans_S2)
    wide = torch.promote_types(hidden_TD.dtype, torch.float32)
    means_SD = hidden_TD.new_empty(len(spans_S2), hidden_TD.shape[1])
    for row, (start, end) in enumerate(spans_S2.tolist()):
        means_SD[row] = hidden_TD[start:end].sum(0, dtype=wide) / (end - start)
    return means_SD


@torch.library.custom_op("alignx_kernels::span_mean_backward", mutates_args=())
def span_mean_backward(grad_SD: torch.Tensor, spans_S2: torch.Tensor, num_tokens: int, impl: str) -> torch.Tensor:
    """Gradient of the packed tokens, [T, D]: the span's gradient over its length, zero outside all spans."""
    spans_S2 = _checked_spans(spans_S2, num_tokens, grad_SD.device, impl)
    if impl == "triton":
        from .span_mean_triton import backward

        return backward(grad_SD, spans_S2, num_tokens)
    grad_TD = grad_SD.new_zeros(num_tokens, grad_SD.shape[1])
    for row, (start, end) in enumerate(spans_S2.tolist()):
        grad_TD[start:end] = grad_SD[row] / (end - start)
    return grad_TD


def _checked_spans(spans_S2: torch.Tensor, num_tokens: int, device: torch.device, impl: str) -> torch.Tensor:
    # Here rather than at the door, so that torch.compile never traces into a look at values.
    if spans_S2.device.type == "cpu":
        check_span_values("spans_S2", spans_S2, num_tokens)
    return spans_S2.to(device, non_blocking=True).contiguous() if impl == "triton" else spans_S2.cpu()


@span_mean_forward.register_fake
def _(hidden_TD, spans_S2, impl):
    return hidden_TD.new_empty(spans_S2.shape[0], hidden_TD.shape[1])


@span_mean_backward.register_fake
def _(grad_SD, spans_S2, num_tokens, impl):
    return grad_SD.new_empty(num_tokens, grad_SD.shape[1])


def _setup_context(ctx, inputs, output):
    hidden_TD, spans_S2, ctx.impl = inputs
    ctx.num_tokens = hidden_TD.shape[0]
    ctx.save_for_backward(spans_S2)


def _backward(ctx, grad_SD):
    (spans_S2,) = ctx.saved_tensors
    return span_mean_backward(grad_SD, spans_S2, ctx.num_tokens, ctx.impl), None, None


span_mean_forward.register_autograd(_backward, setup_context=_setup_context)
