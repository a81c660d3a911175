"""The Triton kernels of language matching: bound by the special-function units.

A program owns BLOCK_A sentences, keeps their projections over the whole classifier width in registers, and sweeps a strip of the other
sentences one by one. Forward sweeps all b for every a. Backward runs twice in one launch: once owning the a-halves, once the b-halves;
each sweep needs z of a pair before its gradient, and computes both from one evaluation of silu, still in registers.

Floors: silu takes two special-function operations (ex2 and rcp), so forward costs 2 M^2 I of them and backward 4 M^2 I, at 16 a
clock and multiprocessor. What a pair needs once is computed by each of the 8 threads that share a row: 8 / I on top for the
sigmoid in backward, 4 / I for the softplus in forward, whose logarithm is a polynomial.
The fp32 operations, 6 an element forward and 11 backward, stay below that floor at 128 a clock; at the 64 a clock of sm_80 backward
is bound by them (22 clocks against 16 for a warp's element). Hence the scaling of the projections before the kernels.

Naming: `i_` index, `o_` offsets, `m_` mask, `p_` pointer, `b_` block in registers. M sentences, I classifier width.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# (Triton compiles these functions: their arguments have Triton's types, which mypy does not know.)

import math

import triton
import triton.language as tl

from ..common.dispatch import INTERPRETED

LOG2_E = tl.constexpr(math.log2(math.e))
LN_2 = tl.constexpr(math.log(2))
NO_ASSEMBLY = tl.constexpr(INTERPRETED)

# Everything in the kernels is [CHUNKS, BLOCK_A, BLOCK_I], with 1 where a value does not depend on a column or a row: the compiler then
# gives a thread one row and CHUNKS * 4 columns of it, and sums over the width in registers before it exchanges anything with other threads.


@triton.jit
def load_rows(p_scaled, o_row, m_row, o_i, m_i, offset, width):
    """One quarter of the projections of some sentences; zeros outside."""
    return tl.load(p_scaled + o_row * (4 * width) + (offset + o_i), mask=m_row & m_i, other=0.0)


@triton.jit
def logistic(x):
    """1 / (1 + 2^x): the sigmoid of -x ln 2. A plain division takes four more operations, which guard against divisors above 2^126."""
    divisor = 1.0 + tl.exp2(x)
    if NO_ASSEMBLY:
        return 1.0 / divisor
    else:
        return tl.inline_asm_elementwise("rcp.approx.ftz.f32 $0, $1;", "=f,f", [divisor], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def sum_over_width(b_terms):
    """[CHUNKS, BLOCK_A, BLOCK_I] -> [1, BLOCK_A, 1]"""
    return tl.sum(tl.sum(b_terms, axis=0, keep_dims=True), axis=2, keep_dims=True)


@triton.jit
def language_pairs_forward_kernel(
    p_scaled,
    p_language,
    p_partial,
    num_sentences,
    width,
    strip,
    BLOCK_A: tl.constexpr,
    BLOCK_I: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """partial[s, a] = sum of loss_ab over the b of strip s, with BLOCK_A sentences a and one strip a program.

    p_scaled [M, 4I] = [-log2(e) ga | -log2(e) gb | w ua | w ub], p_language [M], p_partial [strips, M].
    Floor: 2 M^2 I special-function operations.
    """
    o_a = (tl.program_id(0) * BLOCK_A + tl.arange(0, BLOCK_A)).to(tl.int64)[None, :, None]
    o_i = tl.arange(0, CHUNKS)[:, None, None] * BLOCK_I + tl.arange(0, BLOCK_I)[None, None, :]
    m_a = o_a < num_sentences
    m_i = o_i < width
    b_gate_a = load_rows(p_scaled, o_a, m_a, o_i, m_i, 0, width)
    b_up_a = load_rows(p_scaled, o_a, m_a, o_i, m_i, 2 * width, width)
    b_language = tl.load(p_language + o_a, mask=m_a, other=0)
    b_loss = tl.zeros([1, BLOCK_A, 1], dtype=tl.float32)
    first = tl.program_id(1) * strip
    for i_b in range(first, tl.minimum(first + strip, num_sentences)):
        # The same row for all of BLOCK_A: a full-sized load keeps the layout in which sums stay within 8 threads.
        o_b = tl.zeros([1, BLOCK_A, 1], dtype=tl.int64) + i_b
        b_gate = b_gate_a + load_rows(p_scaled, o_b, m_a, o_i, m_i, width, width)
        b_up = b_up_a + load_rows(p_scaled, o_b, m_a, o_i, m_i, 3 * width, width)
        b_z = sum_over_width(b_gate * logistic(b_gate) * b_up) * -LN_2
        b_wrong = tl.where(b_language == tl.load(p_language + i_b), -b_z, b_z)
        b_loss += tl.maximum(b_wrong, 0.0) + tl.log2(1.0 + tl.exp2(tl.abs(b_wrong) * -LOG2_E)) * LN_2  # softplus
    tl.store(p_partial + tl.program_id(1).to(tl.int64) * num_sentences + o_a, b_loss, mask=m_a)


@triton.jit
def language_pairs_backward_kernel(
    p_grad,
    p_scaled,
    p_language,
    p_partial,
    num_sentences,
    width,
    strip,
    BLOCK_A: tl.constexpr,
    BLOCK_I: tl.constexpr,
    CHUNKS: tl.constexpr,
):
    """partial[s, a] = sums of [dz w v silu'(x) | dz silu(x)] over the other sentences of strip s, where x = ga + gb, v = ua + ub.

    A program owns BLOCK_A sentences as one half of the pair and takes one strip of the other half. p_grad [M] holds the cotangents,
    p_partial [strips, M, 4I] is ordered as the projections; its second half is the A of
    `api.backward_operator`. Floor: 4 M^2 I special-function operations.
    """
    is_b_half = tl.program_id(2)  # which half of the pair the program owns; it sweeps the other
    own_gate = is_b_half * width
    other_gate = width - own_gate
    o_a = (tl.program_id(0) * BLOCK_A + tl.arange(0, BLOCK_A)).to(tl.int64)[None, :, None]
    o_i = tl.arange(0, CHUNKS)[:, None, None] * BLOCK_I + tl.arange(0, BLOCK_I)[None, None, :]
    m_a = o_a < num_sentences
    m_i = o_i < width
    b_gate_own = load_rows(p_scaled, o_a, m_a, o_i, m_i, own_gate, width)
    b_up_own = load_rows(p_scaled, o_a, m_a, o_i, m_i, own_gate + 2 * width, width)
    b_language = tl.load(p_language + o_a, mask=m_a, other=0)
    b_grad_own = tl.load(p_grad + o_a, mask=m_a, other=0.0)
    b_sum_gate = tl.zeros([CHUNKS, BLOCK_A, BLOCK_I], dtype=tl.float32)
    b_sum_up = tl.zeros([CHUNKS, BLOCK_A, BLOCK_I], dtype=tl.float32)
    first = tl.program_id(1) * strip
    for i_b in range(first, tl.minimum(first + strip, num_sentences)):
        o_b = tl.zeros([1, BLOCK_A, 1], dtype=tl.int64) + i_b  # full-sized loads, as in forward
        b_gate = b_gate_own + load_rows(p_scaled, o_b, m_a, o_i, m_i, other_gate, width)
        b_up = b_up_own + load_rows(p_scaled, o_b, m_a, o_i, m_i, other_gate + 2 * width, width)
        b_sigmoid = logistic(b_gate)
        b_silu = b_gate * b_sigmoid  # times -log2(e), like the gate
        b_z = sum_over_width(b_silu * b_up) * -LN_2
        b_same = tl.where(b_language == tl.load(p_language + i_b), 1.0, 0.0)
        b_grad = tl.where(is_b_half == 0, b_grad_own, tl.load(p_grad + i_b))  # the loss of a pair belongs to its a
        b_dz = (logistic(b_z * -LOG2_E) - b_same) * b_grad
        b_sum_up += b_dz * b_silu
        b_sum_gate += (b_dz * b_up) * (b_sigmoid - (b_silu - b_silu * b_sigmoid) * LN_2)  # silu' = s + silu (1 - s)
    p_sums = p_partial + (tl.program_id(1).to(tl.int64) * num_sentences + o_a) * (4 * width) + (own_gate + o_i)
    tl.store(p_sums, b_sum_gate, mask=m_a & m_i)
    tl.store(p_sums + 2 * width, b_sum_up * -LN_2, mask=m_a & m_i)
