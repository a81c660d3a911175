"""Span pooling on a GPU: one pass over the tokens in each direction, bound by memory alone.

Floors, with C covered tokens and B bytes a value: forward reads C*D*B and writes S*D*B; backward reads S*D*B and writes T*D*B.
The look-up from token to span adds three times 8 bytes a token, and stays in L2.
"""

import torch
import triton
import triton.language as tl

from .dispatch import on_device
from .tiles import SPAN_MEAN, SPAN_OWNER, Example, Table, architecture


def forward(hidden_TD: torch.Tensor, spans_S2: torch.Tensor) -> torch.Tensor:
    """[T, D] of any strides, [S, 2] contiguous -> [S, D]."""
    num_tokens, width = hidden_TD.shape
    means_SD = hidden_TD.new_empty(len(spans_S2), width)
    if means_SD.numel():
        tile = SPAN_MEAN[architecture(hidden_TD.device)]
        grid = (len(spans_S2), triton.cdiv(width, tile.blocks["BLOCK_D"]))
        with on_device(hidden_TD):
            span_mean_forward_kernel[grid](hidden_TD, spans_S2, means_SD, num_tokens, width, *hidden_TD.stride(), **tile.options)
    return means_SD


def backward(grad_SD: torch.Tensor, spans_S2: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """[S, D] of any strides, [S, 2] contiguous -> [T, D]; every element is written once."""
    num_spans, width = grad_SD.shape
    if num_spans == 0:
        return grad_SD.new_zeros(num_tokens, width)
    grad_TD = grad_SD.new_empty(num_tokens, width)
    if width:
        arch = architecture(grad_SD.device)
        tile = SPAN_MEAN[arch]
        owner_T = torch.zeros(num_tokens, dtype=torch.int64, device=grad_SD.device)
        grid = (triton.cdiv(num_tokens, tile.blocks["BLOCK_T"]), triton.cdiv(width, tile.blocks["BLOCK_D"]))
        with on_device(grad_SD):
            span_owner_kernel[(num_spans,)](spans_S2, owner_T, num_tokens, **SPAN_OWNER[arch].options)
            span_mean_backward_kernel[grid](
                grad_SD, spans_S2, owner_T, grad_TD, num_tokens, width, *grad_SD.stride(), **tile.options
            )
    return grad_TD


@triton.jit
def load_span(p_spans, i_span, num_tokens):
    """(start, end) of a span, or (0, 0) where it is empty or leaves the tokens."""
    start = tl.load(p_spans + 2 * i_span).to(tl.int64)
    end = tl.load(p_spans + 2 * i_span + 1).to(tl.int64)
    is_valid = (start >= 0) & (start < end) & (end <= num_tokens)
    return tl.where(is_valid, start, 0), tl.where(is_valid, end, 0)


@triton.jit
def span_mean_forward_kernel(
    p_hidden, p_spans, p_means, num_tokens, width, stride_t, stride_d, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr
):
    i_span = tl.program_id(0).to(tl.int64)
    start, end = load_span(p_spans, i_span, num_tokens)
    o_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    m_d = o_d < width
    p_columns = p_hidden + o_d.to(tl.int64) * stride_d
    b_sum = tl.zeros([BLOCK_T, BLOCK_D], dtype=tl.float32)  # BLOCK_T rows at a time keep several loads in flight
    for first in range(start, end, BLOCK_T):
        o_t = first + tl.arange(0, BLOCK_T)
        m_td = (o_t < end)[:, None] & m_d[None, :]
        b_sum += tl.load(p_columns[None, :] + o_t[:, None] * stride_t, mask=m_td, other=0.0).to(tl.float32)
    length = (end - start).to(tl.float32)
    b_mean = tl.where(length > 0, tl.sum(b_sum, axis=0) / tl.maximum(length, 1.0), float("nan"))
    tl.store(p_means + i_span * width + o_d, b_mean.to(p_means.dtype.element_ty), mask=m_d)


@triton.jit
def span_owner_kernel(p_spans, p_owner, num_tokens, BLOCK_T: tl.constexpr):
    # owner[t] = (number of spans that hold t) * 2^32 + (sum of their indices): integer addition is deterministic, and a token
    # that two spans share can be told from one that belongs to the span with that index.
    i_span = tl.program_id(0).to(tl.int64)
    start, end = load_span(p_spans, i_span, num_tokens)
    for first in range(start, end, BLOCK_T):
        o_t = first + tl.arange(0, BLOCK_T)
        tl.atomic_add(p_owner + o_t, tl.zeros([BLOCK_T], dtype=tl.int64) + (i_span + (1 << 32)), mask=o_t < end, sem="relaxed")


@triton.jit
def span_mean_backward_kernel(
    p_grad, p_spans, p_owner, p_out, num_tokens, width, stride_s, stride_d, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr
):
    o_t = tl.program_id(0).to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)
    o_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    m_t = o_t < num_tokens
    m_d = o_d < width
    b_owner = tl.load(p_owner + o_t, mask=m_t, other=0)  # [BLOCK_T]
    b_count = b_owner >> 32
    b_span = b_owner & 0xFFFFFFFF
    m_one = b_count == 1
    b_start = tl.load(p_spans + 2 * b_span, mask=m_one, other=0)
    b_end = tl.load(p_spans + 2 * b_span + 1, mask=m_one, other=1)
    b_length = (b_end - b_start).to(tl.float32)
    p_rows = p_grad + b_span[:, None] * stride_s + o_d.to(tl.int64)[None, :] * stride_d
    b_grad = (
        tl.load(p_rows, mask=m_one[:, None] & m_d[None, :], other=0.0).to(tl.float32) / b_length[:, None]
    )  # [BLOCK_T, BLOCK_D]
    b_grad = tl.where((b_count > 1)[:, None], float("nan"), b_grad)
    tl.store(p_out + o_t[:, None] * width + o_d[None, :], b_grad.to(p_out.dtype.element_ty), mask=m_t[:, None] & m_d[None, :])


def _example(kernel, table: Table, constants: dict[str, int], **arguments: str) -> Example:
    return Example(kernel.__name__.removesuffix("_kernel"), kernel, arguments, constants, table.__getitem__)


EXAMPLES = [
    _example(
        span_mean_forward_kernel,
        SPAN_MEAN,
        {"stride_d": 1},
        p_hidden="*bf16",
        p_spans="*i64",
        p_means="*bf16",
        num_tokens="i32",
        width="i32",
        stride_t="i32",
    ),
    _example(span_owner_kernel, SPAN_OWNER, {}, p_spans="*i64", p_owner="*i64", num_tokens="i32"),
    _example(
        span_mean_backward_kernel,
        SPAN_MEAN,
        {"stride_d": 1},
        p_grad="*bf16",
        p_spans="*i64",
        p_owner="*i64",
        p_out="*bf16",
        num_tokens="i32",
        width="i32",
        stride_s="i32",
    ),
]
