"""The kernel of the InfoNCE statistics: partial sums of every tile, which `kernels_merge` merges into losses.

Naming: `i_` index of a program, `o_` offsets, `m_` mask, `p_` pointer, `b_` block in registers. N queries, M keys, D hidden width,
C rows of a chunk; U = 2 * C * M * D. x_ij as in `kernels_similarity`.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# (Triton compiles these functions: their arguments have Triton's types, which mypy does not know.)

import triton
import triton.language as tl

from .kernels_similarity import (
    PART,
    column_part,
    dot_tile,
    exp2_scale,
    halvings,
    loaded_part,
    raise_root,
    row_factors,
    similarity_tile,
    tile_position,
)


@triton.jit
def statistics_kernel(
    queries,
    keys,
    p_inverse_q,
    p_inverse_k,
    p_temperature,
    p_query_ids,
    p_key_ids,
    p_rows,
    p_columns,
    p_positive,
    p_stored,
    row_start,
    row_end,
    n,
    m,
    d,
    stride_q,
    stride_k,
    stride_s,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN_D: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    HAS_IDS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WITH_MEAN: tl.constexpr,
    STORE: tl.constexpr,
):
    """Per tile: (maximum, sum of exp2(x - maximum)[, sum of exp2(x - maximum) * x]) of each row and, with COLUMNS, column.

    queries [N, D] and keys [M, D]; or, where keys is None, queries is their product [C, M] in fp32, which the library has made.
    A chunk holds whole row tiles, except the last, where row_end is n. The sums go to p_rows [2 or 3, column tiles, C] and
    p_columns [2 or 3, row tiles, N] for `merged`, the third of them only WITH_MEAN; the positives x_ii go to p_positive [N]. STORE
    writes the roots exp2(x / 2^halvings) to p_stored [C, stride_s], zeros from column m on, for `stored_dlogits_kernel`; stride_s is
    a multiple of 16, so that the stores are wide. Where nothing is halved, "maximum" is 0, and no maximum is looked for.
    Floor: U, and one exponential per element; writes C * M elements if STORE.
    """
    tiles_m, tiles_n = tl.cdiv(row_end - row_start, BLOCK_M), tl.cdiv(m, BLOCK_N)
    i_m, i_n = tile_position(tiles_m, tiles_n)
    start_m, start_n = row_start + i_m * BLOCK_M, i_n * BLOCK_N
    if keys is not None:
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
    o_c = i_m * BLOCK_M + tl.arange(0, BLOCK_M)
    o_m = row_start + o_c
    scale = exp2_scale(p_temperature)
    halved = halvings(scale)
    b_row, b_qid = row_factors(p_inverse_q=p_inverse_q, p_query_ids=p_query_ids, scale=scale, o_m=o_m, n=n, HAS_IDS=HAS_IDS)
    length = row_end - row_start
    b_max = tl.zeros([BLOCK_M], tl.float32) - tl.where(halved == 0, 0.0, scale)  # beyond PLAIN no x is smaller
    # Where registers allow it, sums stay apart in PART columns, which are summed once, at the end.
    b_sum = tl.zeros([BLOCK_M], tl.float32) if WITH_MEAN else tl.zeros([BLOCK_M, PART], tl.float32)
    b_weighted = b_sum
    for i_part in tl.static_range(BLOCK_N // PART):
        o_n = start_n + i_part * PART + tl.arange(0, PART)
        b_part = loaded_part(queries, o_c, o_n, row_end - row_start, m, stride_q) if keys is None else column_part(b_dot, i_part)
        b_x = similarity_tile(
            b_dot=b_part,
            b_row=b_row,
            b_qid=b_qid,
            p_inverse_k=p_inverse_k,
            p_key_ids=p_key_ids,
            o_m=o_m,
            o_n=o_n,
            n=n,
            m=m,
            HAS_IDS=HAS_IDS,
        )
        if (start_n + i_part * PART < start_m + BLOCK_M) & (start_m < start_n + (i_part + 1) * PART):
            b_positive = tl.sum(tl.where(o_m[:, None] == o_n[None, :], b_x, 0.0), 1)
            m_p = (o_m >= start_n + i_part * PART) & (o_m < start_n + (i_part + 1) * PART) & (o_m < n)
            tl.store(p_positive + o_m, b_positive, mask=m_p)
        if halved == 0:
            b_root = tl.exp2(b_x)
            b_sum += tl.sum(b_root, 1) if WITH_MEAN else b_root
            if WITH_MEAN:
                b_weighted += tl.sum(b_root * b_x, 1)
            if STORE:
                store_roots(p_stored, b_root, o_c, o_n, length, stride_s)
            if COLUMNS:
                store_column_sums(p_columns, i_m, tiles_m, o_n, n, tl.zeros([PART], tl.float32), b_root, b_x, WITH_MEAN)
        else:
            root_scale = tl.exp2(-halved.to(tl.float32))
            b_root = tl.exp2(b_x * root_scale)
            b_next = tl.maximum(b_max, tl.max(b_x, 1))
            b_e = raise_root(b_root * tl.exp2(-b_next * root_scale)[:, None], halved)
            b_decay = tl.exp2(b_max - b_next)
            if WITH_MEAN:
                b_sum = b_sum * b_decay + tl.sum(b_e, 1)
                b_weighted = b_weighted * b_decay + tl.sum(b_e * b_x, 1)
            else:
                b_sum = b_sum * b_decay[:, None] + b_e
            b_max = b_next
            if STORE:
                store_roots(p_stored, b_root, o_c, o_n, length, stride_s)
            if COLUMNS:
                b_column_max = tl.maximum(tl.max(b_x, 0), -scale)
                b_e = raise_root(b_root * tl.exp2(-b_column_max * root_scale)[None, :], halved)
                store_column_sums(p_columns, i_m, tiles_m, o_n, n, b_column_max, b_e, b_x, WITH_MEAN)
    if not WITH_MEAN:
        b_sum = tl.sum(b_sum, 1)
    store_sums(p_rows, i_n, tiles_n, o_c, length, b_max, b_sum, b_weighted, WITH_MEAN)


@triton.jit
def store_roots(p_stored, b_root, o_c, o_n, length, stride_s):
    """Write roots [rows o_c, columns o_n] to p_stored [length, stride_s]."""
    p_s = p_stored + o_c.to(tl.int64)[:, None] * stride_s + o_n[None, :]
    tl.store(p_s, b_root.to(p_stored.dtype.element_ty), mask=(o_c < length)[:, None] & (o_n < stride_s)[None, :])


@triton.jit
def store_column_sums(p_columns, i_m, tiles_m, o_n, n, b_max, b_e, b_x, WITH_MEAN: tl.constexpr):
    """Write row tile i_m of the partial sums of the columns o_n: b_max, and the sums of b_e and b_e * b_x."""
    b_sum = tl.sum(b_e, 0)
    b_weighted = tl.sum(b_e * b_x, 0) if WITH_MEAN else b_sum
    store_sums(p_columns, i_m, tiles_m, o_n, n, b_max, b_sum, b_weighted, WITH_MEAN)


@triton.jit
def store_sums(p_sums, i_t, tiles, o_x, length, b_max, b_sum, b_weighted, WITH_MEAN: tl.constexpr):
    """Write tile i_t of the partial sums [2 or 3, tiles, length]."""
    p_t = p_sums + i_t.to(tl.int64) * length + o_x
    plane = tl.cast(tiles, tl.int64) * length  # not tiles.to: a launch makes a constant of an integer that is 1
    tl.store(p_t, b_max, mask=o_x < length)
    tl.store(p_t + plane, b_sum, mask=o_x < length)
    if WITH_MEAN:
        tl.store(p_t + 2 * plane, b_weighted, mask=o_x < length)
