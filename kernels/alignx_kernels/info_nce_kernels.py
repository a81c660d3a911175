"""The Triton kernels of InfoNCE; `info_nce_triton` plans and launches them.

Similarities live in the exp2 domain: x_ij = log2(e) * cos(q_i, k_j) / temperature, worked out in fp32 from raw vectors by folding
log2(e) / (|q_i| |k_j| temperature) into the accumulator. Masks are recomputed from the ids. No atomics and no locks: every value has
one writer, and partial results are merged in a fixed order, so that results repeat bit for bit.

U = 2 * C * M * D is the cost of one product over a chunk of C rows. Naming: `i_` index of a program, `o_` offsets, `m_` mask, `p_`
pointer, `b_` block in registers.
"""

import math

import triton
import triton.language as tl

from .info_nce_problem import LEFT_OUT as _LEFT_OUT

LEFT_OUT = tl.constexpr(_LEFT_OUT)
LOG2_E = tl.constexpr(math.log2(math.e))
LN_2 = tl.constexpr(math.log(2))
# |x_ij| <= log2(e) / temperature, for cosines. Up to this bound exp2(x) and sums of 2^40 of them stay far within fp32 without any
# maximum being subtracted, and one exponential serves the row and the column. Beyond it (temperature < 0.024) each has its own.
PLAIN_EXP2 = tl.constexpr(60.0)
# Work after a product goes by parts of so many columns. On Hopper that lets 128 x 256 tiles do without spilled registers.
PART = tl.constexpr(32)
# Row tiles that walk through the keys side by side, so that a key tile is found in L2.
GROUP = tl.constexpr(8)


@triton.jit
def norms_kernel(
    p_queries, p_keys, p_inverse_q, p_inverse_k, n, m, d, stride_q, stride_k, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr
):
    """1 / |x| of each query and key, 0 for a zero vector. Floor: reads (N + M) * D elements once."""
    i_r, tiles = tl.program_id(0), tl.cdiv(n, BLOCK_R)
    if i_r < tiles:
        row_norms(p_queries, p_inverse_q, i_r, n, d, stride_q, BLOCK_R, BLOCK_D)
    else:
        row_norms(p_keys, p_inverse_k, i_r - tiles, m, d, stride_k, BLOCK_R, BLOCK_D)


@triton.jit
def row_norms(p_vectors, p_inverse, i_r, rows, d, stride_v, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr):
    o_r = i_r * BLOCK_R + tl.arange(0, BLOCK_R)
    m_r = o_r < rows
    p_v = p_vectors + o_r.to(tl.int64)[:, None] * stride_v
    b_squares = tl.zeros([BLOCK_R], tl.float32)
    for i_d in range(0, d, BLOCK_D):
        o_d = i_d + tl.arange(0, BLOCK_D)[None, :]
        b_v = tl.load(p_v + o_d, mask=m_r[:, None] & (o_d < d), other=0).to(tl.float32)  # [BLOCK_R, BLOCK_D]
        b_squares += tl.sum(b_v * b_v, 1)
    tl.store(p_inverse + o_r, tl.where(b_squares == 0, 0.0, 1 / tl.sqrt_rn(b_squares)), mask=m_r)


@triton.jit
def dot_tile(
    queries, keys, start_m, start_n, n, m, d, stride_q, stride_k,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, EVEN_D: tl.constexpr, INPUT_PRECISION: tl.constexpr,
):  # fmt: skip
    """q_i . k_j of the tile that starts at (start_m, start_n), in fp32. What lies outside the matrix is finite and meaningless.

    queries and keys are tensor descriptors (loads by the copy engine of sm_90 and later), or pointers.
    """
    b_acc = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    if isinstance(queries, tl.tensor_descriptor):
        for i_k in range(0, d, BLOCK_K):
            b_q = queries.load([start_m, i_k])  # [BLOCK_M, BLOCK_K]
            b_k = keys.load([start_n, i_k])  # [BLOCK_N, BLOCK_K]
            b_acc = tl.dot(b_q, b_k.T, b_acc, input_precision=INPUT_PRECISION)
    else:
        o_k = tl.arange(0, BLOCK_K)
        o_m = tl.minimum(start_m + tl.arange(0, BLOCK_M), n - 1).to(tl.int64)
        o_n = tl.minimum(start_n + tl.arange(0, BLOCK_N), m - 1).to(tl.int64)
        p_q = queries + o_m[:, None] * stride_q + o_k[None, :]
        p_k = keys + o_n[:, None] * stride_k + o_k[None, :]
        for i_k in range(0, d, BLOCK_K):
            if EVEN_D:
                b_q = tl.load(p_q)
                b_k = tl.load(p_k)
            else:
                b_q = tl.load(p_q, mask=o_k[None, :] < d - i_k, other=0)
                b_k = tl.load(p_k, mask=o_k[None, :] < d - i_k, other=0)
            b_acc = tl.dot(b_q, b_k.T, b_acc, input_precision=INPUT_PRECISION)
            p_q += BLOCK_K
            p_k += BLOCK_K
    return b_acc


@triton.jit
def similarity_tile(b_dot, p_inverse_q, p_inverse_k, p_query_ids, p_key_ids, scale, o_m, o_n, n, m, HAS_IDS: tl.constexpr):
    """x_ij from q_i . k_j, with `LEFT_OUT` for masked negatives and outside the matrix."""
    b_row = tl.load(p_inverse_q + o_m, mask=o_m < n, other=0) * scale
    b_col = tl.load(p_inverse_k + o_n, mask=o_n < m, other=0)
    b_x = b_dot * b_row[:, None] * b_col[None, :]
    m_x = (o_m < n)[:, None] & (o_n < m)[None, :]
    if HAS_IDS:
        b_qid = tl.load(p_query_ids + o_m, mask=o_m < n, other=0)
        b_kid = tl.load(p_key_ids + o_n, mask=o_n < m, other=0)
        m_x = m_x & ((b_qid[:, None] != b_kid[None, :]) | (o_m[:, None] == o_n[None, :]))
    return tl.where(m_x, b_x, LEFT_OUT)


@triton.jit
def tile_position(tiles_m, tiles_n):
    """Row and column tile of this program: column by column within `GROUP` rows of tiles."""
    i_p = tl.program_id(0)
    group_size = GROUP * tiles_n
    first = (i_p // group_size) * GROUP
    height = tl.minimum(tiles_m - first, GROUP)
    return first + (i_p % group_size) % height, (i_p % group_size) // height


@triton.jit
def column_part(b_tile, i_part: tl.constexpr):
    """Columns i_part * PART and on of a tile [BLOCK_M, at most 8 * PART]: [BLOCK_M, PART]."""
    b_part = b_tile
    for _ in tl.static_range(3):
        if b_part.shape[1] > PART:
            b_left, b_right = tl.split(b_part.reshape(b_part.shape[0], 2, b_part.shape[1] // 2).permute(0, 2, 1))
            b_part = b_left if PART * i_part % b_part.shape[1] < b_left.shape[1] else b_right
    return b_part


@triton.jit
def statistics_kernel(
    queries, keys, p_inverse_q, p_inverse_k, p_temperature, p_query_ids, p_key_ids, p_rows, p_columns, p_positive,
    p_slab, row_start, row_end, n, m, d, stride_q, stride_k, slab_scale,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, EVEN_D: tl.constexpr, INPUT_PRECISION: tl.constexpr,
    HAS_IDS: tl.constexpr, COLUMNS: tl.constexpr, WITH_MEAN: tl.constexpr, STORE: tl.constexpr,
):  # fmt: skip
    """Per part of a tile: (maximum, sum of exp2(x - maximum)[, sum of exp2(x - maximum) * x]) of each row and, with COLUMNS, column.

    A chunk holds whole row tiles, except the last, where row_end is n. The sums go to p_rows [2 or 3, column parts, C] and
    p_columns [2 or 3, row tiles, N] for `merged`, the positives x_ii to p_positive [N]. STORE writes slab_scale * exp2(x - row
    maximum) to p_slab [C, M] for `rescale_kernel`.
    Floor: U, and one exponential per element (two below temperature 0.024 with COLUMNS); writes C * M elements if STORE.
    """
    tiles_m, tiles_n = tl.cdiv(row_end - row_start, BLOCK_M), tl.cdiv(m, BLOCK_N)
    i_m, i_n = tile_position(tiles_m, tiles_n)
    start_m, start_n = row_start + i_m * BLOCK_M, i_n * BLOCK_N
    b_dot = dot_tile(
        queries, keys, start_m, start_n, n, m, d, stride_q, stride_k, BLOCK_M, BLOCK_N, BLOCK_K, EVEN_D, INPUT_PRECISION
    )
    for i_part in tl.static_range(BLOCK_N // PART):
        part_statistics(
            column_part(b_dot, i_part),
            p_inverse_q, p_inverse_k, p_temperature, p_query_ids, p_key_ids, p_rows, p_columns, p_positive, p_slab,
            row_start, row_end, i_m, tiles_m, i_n * (BLOCK_N // PART) + i_part, tiles_n * (BLOCK_N // PART), n, m, slab_scale,
            BLOCK_M, PART, HAS_IDS, COLUMNS, WITH_MEAN, STORE,
        )  # fmt: skip


@triton.jit
def part_statistics(
    b_dot, p_inverse_q, p_inverse_k, p_temperature, p_query_ids, p_key_ids, p_rows, p_columns, p_positive, p_slab,
    row_start, row_end, i_m, tiles_m, i_n, tiles_n, n, m, slab_scale,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    HAS_IDS: tl.constexpr, COLUMNS: tl.constexpr, WITH_MEAN: tl.constexpr, STORE: tl.constexpr,
):  # fmt: skip
    o_c = i_m * BLOCK_M + tl.arange(0, BLOCK_M)
    o_m, o_n = row_start + o_c, i_n * BLOCK_N + tl.arange(0, BLOCK_N)
    length = row_end - row_start
    scale = LOG2_E / tl.load(p_temperature)
    b_x = similarity_tile(b_dot, p_inverse_q, p_inverse_k, p_query_ids, p_key_ids, scale, o_m, o_n, n, m, HAS_IDS)
    start_m, start_n = row_start + i_m * BLOCK_M, i_n * BLOCK_N
    if (start_n < start_m + BLOCK_M) & (start_m < start_n + BLOCK_N):
        m_p = (o_m[:, None] == o_n[None, :]) & (o_m < n)[:, None]
        tl.store(p_positive + o_m, tl.sum(tl.where(m_p, b_x, 0.0), 1), mask=tl.max(m_p.to(tl.int32), 1) > 0)

    if COLUMNS:
        if scale <= PLAIN_EXP2:
            b_e = tl.exp2(b_x)
            store_sums(p_rows, i_n, tiles_n, o_c, length, tl.zeros([BLOCK_M], tl.float32), b_e, b_x, 1, WITH_MEAN)
            store_sums(p_columns, i_m, tiles_m, o_n, n, tl.zeros([BLOCK_N], tl.float32), b_e, b_x, 0, WITH_MEAN)
        else:
            b_max = tl.max(b_x, 1)
            store_sums(p_rows, i_n, tiles_n, o_c, length, b_max, tl.exp2(b_x - b_max[:, None]), b_x, 1, WITH_MEAN)
            b_max = tl.max(b_x, 0)
            store_sums(p_columns, i_m, tiles_m, o_n, n, b_max, tl.exp2(b_x - b_max[None, :]), b_x, 0, WITH_MEAN)
    else:
        b_max = tl.max(b_x, 1)
        b_e = tl.exp2(b_x - b_max[:, None])
        store_sums(p_rows, i_n, tiles_n, o_c, length, b_max, b_e, b_x, 1, WITH_MEAN)
        if STORE:
            m_s = (o_c < length)[:, None] & (o_n < m)[None, :]
            p_s = p_slab + o_c.to(tl.int64)[:, None] * m + o_n[None, :]
            tl.store(p_s, (b_e * slab_scale).to(p_slab.dtype.element_ty), mask=m_s)


@triton.jit
def store_sums(p_sums, i_t, tiles, o_x, length, b_max, b_e, b_x, AXIS: tl.constexpr, WITH_MEAN: tl.constexpr):
    """One tile's entry of the partial sums [2 or 3, tiles, length]."""
    p_t = p_sums + i_t.to(tl.int64) * length + o_x
    plane = tl.cast(tiles, tl.int64) * length  # not tiles.to: a launch makes a constant of an integer that is 1
    tl.store(p_t, b_max, mask=o_x < length)
    tl.store(p_t + plane, tl.sum(b_e, AXIS), mask=o_x < length)
    if WITH_MEAN:
        tl.store(p_t + 2 * plane, tl.sum(b_e * b_x, AXIS), mask=o_x < length)


@triton.jit
def merge_kernel(
    p_sums, p_state, tiles, length, stride,
    CONTINUE: tl.constexpr, WITH_MEAN: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
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
    b_max, b_sum, b_weighted = merged(p_sums, tiles, length, o_l, b_max, b_sum, b_weighted, WITH_MEAN, BLOCK_T)
    tl.store(p_state + o_l, b_max, mask=m_l)
    tl.store(p_state + stride + o_l, b_sum, mask=m_l)
    if WITH_MEAN:
        tl.store(p_state + 2 * stride + o_l, b_weighted, mask=m_l)


@triton.jit
def merged(p_sums, tiles, length, o_l, b_max, b_sum, b_weighted, WITH_MEAN: tl.constexpr, BLOCK_T: tl.constexpr):
    """Maximum, sum and weighted sum of what is given and of all tiles of p_sums."""
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
    p_rows, p_columns, p_positive, p_temperature, p_loss, p_row_lse, p_column_lse, p_slope, row_start, row_end, row_tiles, column_tiles,
    COLUMNS: tl.constexpr, WITH_MEAN: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_L: tl.constexpr,
):  # fmt: skip
    """Merge partial sums [2 or 3, tiles, C] of rows and columns: loss_i, log2-sums, and d loss_i / d temperature.

    With COLUMNS the chunk is all N rows. Floor: reads 8 or 12 bytes per tile and entry.
    """
    o_l = tl.program_id(0) * BLOCK_L + tl.arange(0, BLOCK_L)
    length = row_end - row_start
    o_m, m_l = row_start + o_l, o_l < length
    b_positive = tl.load(p_positive + o_m, mask=m_l)
    b_none, b_zero = tl.full([BLOCK_L], LEFT_OUT, tl.float32), tl.zeros([BLOCK_L], tl.float32)
    b_max, b_sum, b_weighted = merged(p_rows, row_tiles, length, o_l, b_none, b_zero, b_zero, WITH_MEAN, BLOCK_T)
    b_lse = b_max + tl.log2(b_sum)
    tl.store(p_row_lse + o_m, b_lse, mask=m_l)
    b_loss = b_lse - b_positive
    b_mean = b_weighted / b_sum
    if COLUMNS:
        b_max, b_sum, b_weighted = merged(p_columns, column_tiles, length, o_l, b_none, b_zero, b_zero, WITH_MEAN, BLOCK_T)
        b_lse = b_max + tl.log2(b_sum)
        tl.store(p_column_lse + o_m, b_lse, mask=m_l)
        b_loss = 0.5 * (b_loss + (b_lse - b_positive))
        b_mean = 0.5 * (b_mean + b_weighted / b_sum)
    tl.store(p_loss + o_m, b_loss * LN_2, mask=m_l)
    if WITH_MEAN:
        tl.store(p_slope + o_m, (b_positive - b_mean) * LN_2 / tl.load(p_temperature), mask=m_l)


@triton.jit
def slab_kernel(
    queries, keys, p_inverse_q, p_inverse_k, p_temperature, p_query_ids, p_key_ids, p_row_lse, p_column_lse, p_cotangent,
    p_slab_scale, p_slab, row_start, row_end, n, m, d, stride_q, stride_k,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, BLOCK_K: tl.constexpr, EVEN_D: tl.constexpr, INPUT_PRECISION: tl.constexpr,
    HAS_IDS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Slab [C, M]: slab_scale * temperature * d loss / d (q_i . k_j) under the cotangents of the rows.

    The diagonal is subtracted in fp32, before rounding. Floor: U, one exponential per element (two below temperature 0.024 with
    COLUMNS), and C * M elements written.
    """
    tiles_m, tiles_n = tl.cdiv(row_end - row_start, BLOCK_M), tl.cdiv(m, BLOCK_N)
    i_m, i_n = tile_position(tiles_m, tiles_n)
    start_m, start_n = row_start + i_m * BLOCK_M, i_n * BLOCK_N
    b_dot = dot_tile(
        queries, keys, start_m, start_n, n, m, d, stride_q, stride_k, BLOCK_M, BLOCK_N, BLOCK_K, EVEN_D, INPUT_PRECISION
    )
    for i_part in tl.static_range(BLOCK_N // PART):
        part_slab(
            column_part(b_dot, i_part),
            p_inverse_q, p_inverse_k, p_temperature, p_query_ids, p_key_ids, p_row_lse, p_column_lse, p_cotangent,
            p_slab_scale, p_slab, row_start, row_end, start_m, start_n + i_part * PART, n, m,
            BLOCK_M, PART, HAS_IDS, COLUMNS,
        )  # fmt: skip


@triton.jit
def part_slab(
    b_dot, p_inverse_q, p_inverse_k, p_temperature, p_query_ids, p_key_ids, p_row_lse, p_column_lse, p_cotangent,
    p_slab_scale, p_slab, row_start, row_end, start_m, start_n, n, m,
    BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, HAS_IDS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    o_m, o_n = start_m + tl.arange(0, BLOCK_M), start_n + tl.arange(0, BLOCK_N)
    scale = LOG2_E / tl.load(p_temperature)
    b_x = similarity_tile(b_dot, p_inverse_q, p_inverse_k, p_query_ids, p_key_ids, scale, o_m, o_n, n, m, HAS_IDS)
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
    store_slab(b_g, p_inverse_q, p_inverse_k, p_slab_scale, p_slab, o_m - row_start, o_m, o_n, row_end, n, m)


@triton.jit
def rescale_kernel(
    p_slab, p_sums, p_row_lse, p_positive, p_inverse_q, p_inverse_k, p_slab_scale, row_start, row_end, n, m, tiles, stored_scale,
    BLOCK_M: tl.constexpr, BLOCK_T: tl.constexpr,
):  # fmt: skip
    """In place, from what `statistics_kernel` stored to what `slab_kernel` stores for one direction under cotangents of 1.

    A program takes BLOCK_T parts. The diagonal is worked out from the positives, so that 1 is subtracted before rounding. Floor: reads
    and writes C * M elements once.
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
    p_s = p_slab + o_c.to(tl.int64)[:, None] * m + o_n[None, :]
    b_g = tl.load(p_s, mask=m_c[:, None] & (o_n < m)[None, :], other=0).to(tl.float32) * b_factor
    b_positive = tl.load(p_positive + o_m, mask=m_c, other=0)
    b_g = tl.where(o_m[:, None] == o_n[None, :], (tl.exp2(b_positive - b_lse) - 1)[:, None], b_g)
    store_slab(b_g, p_inverse_q, p_inverse_k, p_slab_scale, p_slab, o_c, o_m, o_n, row_end, n, m)


@triton.jit
def store_slab(b_g, p_inverse_q, p_inverse_k, p_slab_scale, p_slab, o_c, o_m, o_n, row_end, n, m):
    """Fold both norms in, round, and write."""
    b_row = tl.load(p_inverse_q + o_m, mask=o_m < n, other=0) * tl.load(p_slab_scale)
    b_col = tl.load(p_inverse_k + o_n, mask=o_n < m, other=0)
    m_s = (o_m < row_end)[:, None] & (o_n < m)[None, :]
    p_s = p_slab + o_c.to(tl.int64)[:, None] * m + o_n[None, :]
    tl.store(p_s, (b_g * b_row[:, None] * b_col[None, :]).to(p_slab.dtype.element_ty), mask=m_s)


@triton.jit
def project_kernel(
    p_raw_a, p_vectors_a, p_inverse_a, p_grad_a, p_raw_b, p_vectors_b, p_inverse_b, p_grad_b, p_temperature, p_slab_scale,
    rows_a, rows_b, d, stride_a, stride_b, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    """Gradients at the vectors a and b from slab @ vectors [rows, D]: remove the part along x, undo slab_scale, divide by the temperature.

    p_grad may be p_raw. Floor: reads rows * D products (fp32) and vectors, writes as many gradients.
    """
    i_r, tiles = tl.program_id(0), tl.cdiv(rows_a, BLOCK_R)
    factor = 1 / (tl.load(p_temperature) * tl.load(p_slab_scale))
    if i_r < tiles:
        project_rows(p_raw_a, p_vectors_a, p_inverse_a, p_grad_a, factor, i_r, rows_a, d, stride_a, BLOCK_R, BLOCK_D)
    else:
        project_rows(p_raw_b, p_vectors_b, p_inverse_b, p_grad_b, factor, i_r - tiles, rows_b, d, stride_b, BLOCK_R, BLOCK_D)


@triton.jit
def project_rows(p_raw, p_vectors, p_inverse, p_grad, factor, i_r, rows, d, stride, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr):
    o_r = i_r * BLOCK_R + tl.arange(0, BLOCK_R)
    m_r = o_r < rows
    p_g = p_raw + o_r.to(tl.int64)[:, None] * d
    p_v = p_vectors + o_r.to(tl.int64)[:, None] * stride
    b_along = tl.zeros([BLOCK_R], tl.float32)
    for i_d in range(0, d, BLOCK_D):
        o_d = i_d + tl.arange(0, BLOCK_D)[None, :]
        m_d = m_r[:, None] & (o_d < d)
        b_along += tl.sum(tl.load(p_g + o_d, mask=m_d, other=0) * tl.load(p_v + o_d, mask=m_d, other=0).to(tl.float32), 1)
    b_inverse = tl.load(p_inverse + o_r, mask=m_r, other=0)
    b_along *= b_inverse * b_inverse
    for i_d in range(0, d, BLOCK_D):
        o_d = i_d + tl.arange(0, BLOCK_D)[None, :]
        m_d = m_r[:, None] & (o_d < d)
        b_v = tl.load(p_v + o_d, mask=m_d, other=0).to(tl.float32)
        b_grad = (tl.load(p_g + o_d, mask=m_d, other=0) - b_v * b_along[:, None]) * factor
        tl.store(p_grad + o_r.to(tl.int64)[:, None] * d + o_d, b_grad.to(p_grad.dtype.element_ty), mask=m_d)
