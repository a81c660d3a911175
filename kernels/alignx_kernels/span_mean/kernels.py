"""The Triton kernels of span pooling: one pass over the tokens in each direction, bound by memory alone.

Floors, with C covered tokens and B bytes a value: forward reads C*D*B and writes S*D*B; backward reads S*D*B and writes T*D*B.
The look-up from token to span adds three times 8 bytes a token, and stays in L2.

Naming: `i_` index of a program, `o_` offsets, `m_` mask, `p_` pointer, `b_` block in registers. T tokens, S spans, D hidden width.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# (Triton compiles these functions: their arguments have Triton's types, which mypy does not know.)

import triton
import triton.language as tl


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
    """means[s] = sum of hidden[start:end] / (end - start): p_hidden [T, D], p_spans [S, 2] -> p_means [S, D].

    A program sums BLOCK_D columns of one span. Floor: reads every covered token once, writes S * D values.
    """
    i_span = tl.program_id(0).to(tl.int64)
    start, end = load_span(p_spans, i_span, num_tokens)
    o_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    m_d = o_d < width
    p_columns = p_hidden + o_d.to(tl.int64) * stride_d
    b_sum = tl.zeros([BLOCK_T, BLOCK_D], dtype=tl.float32)  # BLOCK_T rows at a time, so that several loads are under way
    for first in range(start, end, BLOCK_T):
        o_t = first + tl.arange(0, BLOCK_T)
        m_td = (o_t < end)[:, None] & m_d[None, :]
        b_sum += tl.load(p_columns[None, :] + o_t[:, None] * stride_t, mask=m_td, other=0.0).to(tl.float32)
    length = (end - start).to(tl.float32)
    b_mean = tl.where(length > 0, tl.sum(b_sum, axis=0) / tl.maximum(length, 1.0), float("nan"))
    tl.store(p_means + i_span * width + o_d, b_mean.to(p_means.dtype.element_ty), mask=m_d)


@triton.jit
def span_owner_kernel(p_spans, p_owner, num_tokens, BLOCK_T: tl.constexpr):
    """owner[t] = (number of spans that hold t) * 2^32 + (sum of their indices): p_spans [S, 2] -> p_owner [T], zeros before.

    Integer additions give the same result in any order, and a token that two spans share differs from one that belongs to the span
    with that index. Floor: 8 bytes read and written per covered token.
    """
    i_span = tl.program_id(0).to(tl.int64)
    start, end = load_span(p_spans, i_span, num_tokens)
    for first in range(start, end, BLOCK_T):
        o_t = first + tl.arange(0, BLOCK_T)
        tl.atomic_add(p_owner + o_t, tl.zeros([BLOCK_T], dtype=tl.int64) + (i_span + (1 << 32)), mask=o_t < end, sem="relaxed")


@triton.jit
def span_mean_backward_kernel(
    p_grad, p_spans, p_owner, p_out, num_tokens, width, stride_s, stride_d, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr
):
    """out[t] = grad[s] / (end - start) for the span s of token t, 0 without one: p_grad [S, D], p_owner [T] -> p_out [T, D].

    A program writes BLOCK_T tokens of BLOCK_D columns. Floor: reads S * D values, writes T * D, every one once.
    """
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
    b_grad = tl.load(p_rows, mask=m_one[:, None] & m_d[None, :], other=0.0).to(tl.float32)  # [BLOCK_T, BLOCK_D]
    b_grad = b_grad / b_length[:, None]
    b_grad = tl.where((b_count > 1)[:, None], float("nan"), b_grad)
    tl.store(p_out + o_t[:, None] * width + o_d[None, :], b_grad.to(p_out.dtype.element_ty), mask=m_t[:, None] & m_d[None, :])
