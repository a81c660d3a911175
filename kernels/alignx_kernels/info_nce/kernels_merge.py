"""The kernels that merge the partial sums of `kernels_statistics` into losses, log-sums and slopes.

Naming: `i_` index of a program, `o_` offsets, `m_` mask, `p_` pointer, `b_` block in registers. N queries, C rows of a chunk. x_ij as
in `kernels_similarity`.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# (Triton compiles these functions: their arguments have Triton's types, which mypy does not know.)

import triton
import triton.language as tl

from .kernels_similarity import LEFT_OUT, LN_2


@triton.jit
def merge_kernel(
    p_sums,
    p_state,
    tiles,
    length,
    stride,
    CONTINUE: tl.constexpr,
    WITH_MEAN: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """Merge partial sums [2 or 3, tiles, length] into the state [2 or 3, length], whose planes are `stride` apart.

    CONTINUE adds to the state that is there. Floor: reads 8 or 12 bytes per tile and entry.
    """
    o_l = tl.program_id(0) * BLOCK_L + tl.arange(0, BLOCK_L)
    m_l = o_l < length
    b_max, b_sum = tl.full([BLOCK_L], LEFT_OUT, tl.float32), tl.zeros([BLOCK_L], tl.float32)
    b_weighted = b_sum
    if CONTINUE:
        b_max = tl.load(p_state + o_l, mask=m_l, other=LEFT_OUT)
        b_sum = tl.load(p_state + stride + o_l, mask=m_l, other=0)
        if WITH_MEAN:
            b_weighted = tl.load(p_state + 2 * stride + o_l, mask=m_l, other=0)
    b_max, b_sum, b_weighted = merged(
        p_sums=p_sums,
        tiles=tiles,
        length=length,
        o_l=o_l,
        b_max=b_max,
        b_sum=b_sum,
        b_weighted=b_weighted,
        WITH_MEAN=WITH_MEAN,
        BLOCK_T=BLOCK_T,
    )
    tl.store(p_state + o_l, b_max, mask=m_l)
    tl.store(p_state + stride + o_l, b_sum, mask=m_l)
    if WITH_MEAN:
        tl.store(p_state + 2 * stride + o_l, b_weighted, mask=m_l)


@triton.jit
def merged(p_sums, tiles, length, o_l, b_max, b_sum, b_weighted, WITH_MEAN: tl.constexpr, BLOCK_T: tl.constexpr):
    """(maximum, sum, weighted sum) [BLOCK_L] over those given and those of all tiles in p_sums [2 or 3, tiles, length].

    A sum under maximum a joins one under maximum b >= a times exp2(a - b).
    """
    plane = tl.cast(tiles, tl.int64) * length  # not tiles.to: a launch makes a constant of an integer that is 1
    for i_t in range(0, tiles, BLOCK_T):
        o_t = i_t + tl.arange(0, BLOCK_T)
        m_t = (o_t < tiles)[:, None] & (o_l < length)[None, :]
        p_t = p_sums + o_t.to(tl.int64)[:, None] * length + o_l[None, :]
        b_new = tl.load(p_t, mask=m_t, other=LEFT_OUT)  # [BLOCK_T, BLOCK_L]
        b_next = tl.maximum(b_max, tl.max(b_new, 0))
        b_decay, b_factor = tl.exp2(b_max - b_next), tl.exp2(b_new - b_next[None, :])
        b_sum = b_sum * b_decay + tl.sum(tl.load(p_t + plane, mask=m_t, other=0) * b_factor, 0)
        if WITH_MEAN:
            b_weighted = b_weighted * b_decay + tl.sum(tl.load(p_t + 2 * plane, mask=m_t, other=0) * b_factor, 0)
        b_max = b_next
    return b_max, b_sum, b_weighted


@triton.jit
def finish_kernel(
    p_rows,
    p_columns,
    p_positive,
    p_temperature,
    p_loss,
    p_row_lse,
    p_column_lse,
    p_slope,
    row_start,
    row_end,
    row_tiles,
    column_tiles,
    share,
    COLUMNS: tl.constexpr,
    WITH_MEAN: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_L: tl.constexpr,
):
    """Merge partial sums [2 or 3, tiles, C] of rows and columns: loss_i = ln 2 (lse_i - x_ii), lse, and share * d loss_i / d temperature.

    lse_i = log2(sum_j exp2(x_ij)). p_loss, p_row_lse, p_column_lse and p_slope are [N]; the chunk's rows are written. With COLUMNS the
    chunk is all N rows. Floor: reads 8 or 12 bytes per tile and entry.
    """
    o_l = tl.program_id(0) * BLOCK_L + tl.arange(0, BLOCK_L)
    length = row_end - row_start
    o_m, m_l = row_start + o_l, o_l < length
    b_positive = tl.load(p_positive + o_m, mask=m_l)
    b_none, b_zero = tl.full([BLOCK_L], LEFT_OUT, tl.float32), tl.zeros([BLOCK_L], tl.float32)
    b_max, b_sum, b_weighted = merged(
        p_sums=p_rows,
        tiles=row_tiles,
        length=length,
        o_l=o_l,
        b_max=b_none,
        b_sum=b_zero,
        b_weighted=b_zero,
        WITH_MEAN=WITH_MEAN,
        BLOCK_T=BLOCK_T,
    )
    b_lse = b_max + tl.log2(b_sum)
    tl.store(p_row_lse + o_m, b_lse, mask=m_l)
    b_loss = b_lse - b_positive
    b_mean = b_weighted / b_sum
    if COLUMNS:
        b_max, b_sum, b_weighted = merged(
            p_sums=p_columns,
            tiles=column_tiles,
            length=length,
            o_l=o_l,
            b_max=b_none,
            b_sum=b_zero,
            b_weighted=b_zero,
            WITH_MEAN=WITH_MEAN,
            BLOCK_T=BLOCK_T,
        )
        b_lse = b_max + tl.log2(b_sum)
        tl.store(p_column_lse + o_m, b_lse, mask=m_l)
        b_loss = 0.5 * (b_loss + (b_lse - b_positive))
        b_mean = 0.5 * (b_mean + b_weighted / b_sum)
    tl.store(p_loss + o_m, b_loss * LN_2, mask=m_l)
    if WITH_MEAN:
        tl.store(p_slope + o_m, (b_positive - b_mean) * (share * LN_2) / tl.load(p_temperature), mask=m_l)
