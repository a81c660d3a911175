"""Mean of hidden states over spans of packed tokens: the public function, its operators and its autograd.

Shape legend: T packed tokens, S spans, D hidden width.
"""

import torch

from ..common.autograd import Context
from ..common.checks import check_matrix, check_span_values, check_spans
from ..common.dispatch import choose_implementation
from . import chunked, reference


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
    impl = choose_implementation(impl, hidden_TD)
    if impl == "reference":
        check_span_values("spans_S2", spans_S2.cpu(), hidden_TD.shape[0])
        return reference.span_mean(hidden_TD, spans_S2)
    means_SD: torch.Tensor
    if torch.compiler.is_compiling():
        means_SD = forward_operator(hidden_TD, spans_S2, impl)
    else:
        means_SD = SpanMean.apply(hidden_TD, spans_S2, impl)  # type: ignore[no-untyped-call]  # PyTorch leaves `apply` untyped
    return means_SD


@torch.library.custom_op("alignx_kernels::span_mean", mutates_args=())
def forward_operator(hidden_TD: torch.Tensor, spans_S2: torch.Tensor, impl: str) -> torch.Tensor:
    """`span_mean` after validation of shapes; `impl` is "triton" or "chunked"."""
    spans_S2 = _checked_spans(spans_S2, hidden_TD.shape[0], hidden_TD.device, impl)
    if impl == "triton":
        from . import launch  # not at the top of the file: machines without Triton import it too

        return launch.forward(hidden_TD, spans_S2)
    return chunked.forward(hidden_TD, spans_S2)


@torch.library.custom_op("alignx_kernels::span_mean_backward", mutates_args=())
def backward_operator(grad_SD: torch.Tensor, spans_S2: torch.Tensor, num_tokens: int, impl: str) -> torch.Tensor:
    """Gradient of the packed tokens, [T, D]: the span's gradient over its length, zero outside all spans."""
    spans_S2 = _checked_spans(spans_S2, num_tokens, grad_SD.device, impl)
    if impl == "triton":
        from . import launch

        return launch.backward(grad_SD, spans_S2, num_tokens)
    return chunked.backward(grad_SD, spans_S2, num_tokens)


def _checked_spans(spans_S2: torch.Tensor, num_tokens: int, device: torch.device, impl: str) -> torch.Tensor:
    # Within the operators, so that torch.compile does not trace the look at values.
    if spans_S2.device.type == "cpu":
        check_span_values("spans_S2", spans_S2, num_tokens)
    return spans_S2.to(device, non_blocking=True).contiguous() if impl == "triton" else spans_S2.cpu()


@forward_operator.register_fake
def _(hidden_TD: torch.Tensor, spans_S2: torch.Tensor, impl: str) -> torch.Tensor:
    return hidden_TD.new_empty(spans_S2.shape[0], hidden_TD.shape[1])


@backward_operator.register_fake
def _(grad_SD: torch.Tensor, spans_S2: torch.Tensor, num_tokens: int, impl: str) -> torch.Tensor:
    return grad_SD.new_empty(num_tokens, grad_SD.shape[1])


class _SpanMeanContext(Context):
    num_tokens: int
    impl: str


class SpanMean(torch.autograd.Function):
    """Autograd of `span_mean`: keeps the spans, and never the hidden states."""

    @staticmethod
    def forward(ctx: _SpanMeanContext, hidden_TD: torch.Tensor, spans_S2: torch.Tensor, impl: str) -> torch.Tensor:
        means_SD: torch.Tensor = forward_operator(hidden_TD, spans_S2, impl)
        SpanMean.save(ctx, (hidden_TD, spans_S2, impl), means_SD)
        return means_SD

    @staticmethod
    def save(ctx: _SpanMeanContext, inputs: tuple[torch.Tensor, torch.Tensor, str], output: torch.Tensor) -> None:
        hidden_TD, spans_S2, ctx.impl = inputs
        ctx.num_tokens = hidden_TD.shape[0]
        ctx.save_for_backward(spans_S2)

    @staticmethod
    def backward(ctx: _SpanMeanContext, *cotangents: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (grad_SD,) = cotangents
        (spans_S2,) = ctx.saved_tensors
        return backward_operator(grad_SD, spans_S2, ctx.num_tokens, ctx.impl), None, None


# The same autograd for the operator itself, which `torch.compile` sees in place of `SpanMean`.
forward_operator.register_autograd(SpanMean.backward, setup_context=SpanMean.save)
