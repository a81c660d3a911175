"""The kernels of dlogits, d loss / d similarity: recomputed from the vectors, or rescaled from the stored exponentials.

Naming: `i_` index of a program, `o_` offsets, `m_` mask, `p_` pointer, `b_` block in registers. N queries, M keys, D hidden width,
C rows of a chunk; U = 2 * C * M * D. x_ij as in `kernels_similarity`.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# (Triton compiles these functions: their arguments have Triton's types, which mypy does not know.)

import triton
import triton.language as tl

from .kernels_similarity import LEFT_OUT, LOG2_E, PART, PLAIN_EXP2, column_part, dot_tile, similarity_tile, tile_position


@triton.jit
def dlogits_kernel(
    queries,
    keys,
    p_inverse_q,
    p_inverse_k,
    p_temperature,
    p_query_ids,
    p_key_ids,
    p_row_lse,
    p_column_lse,
    p_cotangent,
    p_dlogits_scale,
    p_dlogits,
    row_start,
    row_end,
    n,
    m,
    d,
    stride_q,
    stride_k,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN_D: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    HAS_IDS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """dlogits [C, M] = dlogits_scale * temperature * d loss / d (q_i . k_j) under the cotangents g [N] of the losses.

    temperature * d loss / d (q_i . k_j) = (g_i (exp2(x_ij - lse_i) - [i = j])) / (|q_i| |k_j|); with COLUMNS the mean of this and the
    same of the columns. The diagonal is subtracted in fp32, before rounding. Floor: U, one exponential per element (two below
    temperature 0.024 with COLUMNS), and C * M elements written.
    """
    tiles_m, tiles_n = tl.cdiv(row_end - row_start, BLOCK_M), tl.cdiv(m, BLOCK_N)
    i_m, i_n = tile_position(tiles_m, tiles_n)
    start_m, start_n = row_start + i_m * BLOCK_M, i_n * BLOCK_N
    b_dot = dot_tile(
        queries=queries,
        keys=keys,
        start_m=start_m,
        start_n=start_n,
        n=n,
        m=m,
        d=d,
        stride_q=stride_q,
        stride_k=stride_k,
        BLOCK_M=BLOCK_M,
        BLOCK_N=BLOCK_N,
        BLOCK_K=BLOCK_K,
        EVEN_D=EVEN_D,
        INPUT_PRECISION=INPUT_PRECISION,
    )
    for i_part in tl.static_range(BLOCK_N // PART):
        part_dlogits(
            b_dot=column_part(b_dot, i_part),
            p_inverse_q=p_inverse_q,
            p_inverse_k=p_inverse_k,
            p_temperature=p_temperature,
            p_query_ids=p_query_ids,
            p_key_ids=p_key_ids,
            p_row_lse=p_row_lse,
            p_column_lse=p_column_lse,
            p_cotangent=p_cotangent,
            p_dlogits_scale=p_dlogits_scale,
            p_dlogits=p_dlogits,
            row_start=row_start,
            row_end=row_end,
            start_m=start_m,
            start_n=start_n + i_part * PART,
            n=n,
            m=m,
            BLOCK_M=BLOCK_M,
            BLOCK_N=PART,
            HAS_IDS=HAS_IDS,
            COLUMNS=COLUMNS,
        )


@triton.jit
def part_dlogits(
    b_dot,
    p_inverse_q,
    p_inverse_k,
    p_temperature,
    p_query_ids,
    p_key_ids,
    p_row_lse,
    p_column_lse,
    p_cotangent,
    p_dlogits_scale,
    p_dlogits,
    row_start,
    row_end,
    start_m,
    start_n,
    n,
    m,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    HAS_IDS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """`dlogits_kernel` for one part of its tile: b_dot [BLOCK_M, BLOCK_N], with BLOCK_N = PART columns that start at start_n."""
    o_m, o_n = start_m + tl.arange(0, BLOCK_M), start_n + tl.arange(0, BLOCK_N)
    scale = LOG2_E / tl.load(p_temperature)
    b_x = similarity_tile(
        b_dot=b_dot,
        p_inverse_q=p_inverse_q,
        p_inverse_k=p_inverse_k,
        p_query_ids=p_query_ids,
        p_key_ids=p_key_ids,
        scale=scale,
        o_m=o_m,
        o_n=o_n,
        n=n,
        m=m,
        HAS_IDS=HAS_IDS,
    )
    b_row_lse = tl.load(p_row_lse + o_m, mask=o_m < n, other=0)
    b_row_weight = tl.load(p_cotangent + o_m, mask=o_m < n, other=0)
    if COLUMNS:
        b_col_lse = tl.load(p_column_lse + o_n, mask=o_n < n, other=0)
        b_col_weight = tl.load(p_cotangent + o_n, mask=o_n < n, other=0)
        if scale <= PLAIN_EXP2:
            b_sum = (b_row_weight * tl.exp2(-b_row_lse))[:, None] + (b_col_weight * tl.exp2(-b_col_lse))[None, :]
            b_g = 0.5 * tl.exp2(b_x) * b_sum
        else:
            b_g = tl.exp2(b_x - b_row_lse[:, None]) * b_row_weight[:, None]
            b_g += tl.where((o_n < n)[None, :], tl.exp2(b_x - b_col_lse[None, :]), 0.0) * b_col_weight[None, :]
            b_g *= 0.5
    else:
        b_g = tl.exp2(b_x - b_row_lse[:, None]) * b_row_weight[:, None]
    b_g = tl.where(o_m[:, None] == o_n[None, :], b_g - b_row_weight[:, None], b_g)
    store_dlogits(
        b_g=b_g,
        p_inverse_q=p_inverse_q,
        p_inverse_k=p_inverse_k,
        p_dlogits_scale=p_dlogits_scale,
        p_dlogits=p_dlogits,
        o_c=o_m - row_start,
        o_m=o_m,
        o_n=o_n,
        row_end=row_end,
        n=n,
        m=m,
    )


@triton.jit
def rescale_kernel(
    p_dlogits,
    p_sums,
    p_row_lse,
    p_positive,
    p_inverse_q,
    p_inverse_k,
    p_dlogits_scale,
    row_start,
    row_end,
    n,
    m,
    tiles,
    stored_scale,
    BLOCK_M: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """In place, from what `statistics_kernel` stored to what `dlogits_kernel` stores for one direction under cotangents of 1.

    exp2(x - part maximum) * exp2(part maximum - lse) = exp2(x - lse). p_dlogits [C, M], p_sums [2 or 3, tiles, C] with the maxima in
    front. A program takes BLOCK_T parts. The diagonal is computed from the positives, so that 1 is subtracted before rounding.
    Floor: reads and writes C * M elements once.
    """
    length = row_end - row_start
    o_c = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    o_t = tl.program_id(1) * BLOCK_T + tl.arange(0, BLOCK_T)
    o_m, o_n = row_start + o_c, tl.program_id(1) * BLOCK_T * PART + tl.arange(0, BLOCK_T * PART)
    m_c = o_c < length
    b_lse = tl.load(p_row_lse + o_m, mask=m_c, other=0)
    p_t = p_sums + o_t.to(tl.int64)[None, :] * length + o_c[:, None]
    b_max = tl.load(p_t, mask=m_c[:, None] & (o_t < tiles)[None, :], other=LEFT_OUT)
    b_factor = tl.exp2(b_max - b_lse[:, None]) / stored_scale  # [BLOCK_M, BLOCK_T]
    b_factor = b_factor[:, :, None].broadcast_to(BLOCK_M, BLOCK_T, PART).reshape(BLOCK_M, BLOCK_T * PART)
    p_s = p_dlogits + o_c.to(tl.int64)[:, None] * m + o_n[None, :]
    b_g = tl.load(p_s, mask=m_c[:, None] & (o_n < m)[None, :], other=0).to(tl.float32) * b_factor
    b_positive = tl.load(p_positive + o_m, mask=m_c, other=0)
    b_g = tl.where(o_m[:, None] == o_n[None, :], (tl.exp2(b_positive - b_lse) - 1)[:, None], b_g)
    store_dlogits(
        b_g=b_g,
        p_inverse_q=p_inverse_q,
        p_inverse_k=p_inverse_k,
        p_dlogits_scale=p_dlogits_scale,
        p_dlogits=p_dlogits,
        o_c=o_c,
        o_m=o_m,
        o_n=o_n,
        row_end=row_end,
        n=n,
        m=m,
    )


@triton.jit
def store_dlogits(b_g, p_inverse_q, p_inverse_k, p_dlogits_scale, p_dlogits, o_c, o_m, o_n, row_end, n, m):
    """dlogits_scale * b_g / (|q_i| |k_j|), rounded and written to p_dlogits [C, M]; o_c are the rows within the chunk."""
    b_row = tl.load(p_inverse_q + o_m, mask=o_m < n, other=0) * tl.load(p_dlogits_scale)
    b_col = tl.load(p_inverse_k + o_n, mask=o_n < m, other=0)
    m_s = (o_m < row_end)[:, None] & (o_n < m)[None, :]
    p_s = p_dlogits + o_c.to(tl.int64)[:, None] * m + o_n[None, :]
    tl.store(p_s, (b_g * b_row[:, None] * b_col[None, :]).to(p_dlogits.dtype.element_ty), mask=m_s)
