"""The kernel of the InfoNCE statistics: partial sums of every tile, which `kernels_merge` merges into losses.

Naming: `i_` index of a program, `o_` offsets, `m_` mask, `p_` pointer, `b_` block in registers. N queries, M keys, D hidden width,
C rows of a chunk; U = 2 * C * M * D. x_ij as in `kernels_similarity`.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# (Triton compiles these functions: their arguments have Triton's types, which mypy does not know.)

import triton
import triton.language as tl

from .kernels_similarity import LOG2_E, PART, PLAIN_EXP2, column_part, dot_tile, similarity_tile, tile_position


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
    stored_scale,
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
    """Per part of a tile: (maximum, sum of exp2(x - maximum)[, sum of exp2(x - maximum) * x]) of each row and, with COLUMNS, column.

    A chunk holds whole row tiles, except the last, where row_end is n. The sums go to p_rows [2 or 3, column parts, C] and
    p_columns [2 or 3, row tiles, N] for `merged`, the third of them only WITH_MEAN; the positives x_ii go to p_positive [N]. STORE
    writes stored_scale * exp2(x - row maximum) to p_stored [C, M] for `rescale_kernel`.
    Floor: U, and one exponential per element (two below temperature 0.024 with COLUMNS); writes C * M elements if STORE.
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
        part_statistics(
            b_dot=column_part(b_dot, i_part),
            p_inverse_q=p_inverse_q,
            p_inverse_k=p_inverse_k,
            p_temperature=p_temperature,
            p_query_ids=p_query_ids,
            p_key_ids=p_key_ids,
            p_rows=p_rows,
            p_columns=p_columns,
            p_positive=p_positive,
            p_stored=p_stored,
            row_start=row_start,
            row_end=row_end,
            i_m=i_m,
            tiles_m=tiles_m,
            i_n=i_n * (BLOCK_N // PART) + i_part,
            tiles_n=tiles_n * (BLOCK_N // PART),
            n=n,
            m=m,
            stored_scale=stored_scale,
            BLOCK_M=BLOCK_M,
            BLOCK_N=PART,
            HAS_IDS=HAS_IDS,
            COLUMNS=COLUMNS,
            WITH_MEAN=WITH_MEAN,
            STORE=STORE,
        )


@triton.jit
def part_statistics(
    b_dot,
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
    i_m,
    tiles_m,
    i_n,
    tiles_n,
    n,
    m,
    stored_scale,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    HAS_IDS: tl.constexpr,
    COLUMNS: tl.constexpr,
    WITH_MEAN: tl.constexpr,
    STORE: tl.constexpr,
):
    """`statistics_kernel` for one part of its tile: b_dot [BLOCK_M, BLOCK_N], with BLOCK_N = PART columns that start at i_n * PART."""
    o_c = i_m * BLOCK_M + tl.arange(0, BLOCK_M)
    o_m, o_n = row_start + o_c, i_n * BLOCK_N + tl.arange(0, BLOCK_N)
    length = row_end - row_start
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
    start_m, start_n = row_start + i_m * BLOCK_M, i_n * BLOCK_N
    if (start_n < start_m + BLOCK_M) & (start_m < start_n + BLOCK_N):
        m_p = (o_m[:, None] == o_n[None, :]) & (o_m < n)[:, None]
        tl.store(p_positive + o_m, tl.sum(tl.where(m_p, b_x, 0.0), 1), mask=tl.max(m_p.to(tl.int32), 1) > 0)

    if COLUMNS:
        if scale <= PLAIN_EXP2:
            b_e = tl.exp2(b_x)
            store_sums(
                p_sums=p_rows,
                i_t=i_n,
                tiles=tiles_n,
                o_x=o_c,
                length=length,
                b_max=tl.zeros([BLOCK_M], tl.float32),
                b_e=b_e,
                b_x=b_x,
                AXIS=1,
                WITH_MEAN=WITH_MEAN,
            )
            store_sums(
                p_sums=p_columns,
                i_t=i_m,
                tiles=tiles_m,
                o_x=o_n,
                length=n,
                b_max=tl.zeros([BLOCK_N], tl.float32),
                b_e=b_e,
                b_x=b_x,
                AXIS=0,
                WITH_MEAN=WITH_MEAN,
            )
        else:
            b_max = tl.max(b_x, 1)
            store_sums(
                p_sums=p_rows,
                i_t=i_n,
                tiles=tiles_n,
                o_x=o_c,
                length=length,
                b_max=b_max,
                b_e=tl.exp2(b_x - b_max[:, None]),
                b_x=b_x,
                AXIS=1,
                WITH_MEAN=WITH_MEAN,
            )
            b_max = tl.max(b_x, 0)
            store_sums(
                p_sums=p_columns,
                i_t=i_m,
                tiles=tiles_m,
                o_x=o_n,
                length=n,
                b_max=b_max,
                b_e=tl.exp2(b_x - b_max[None, :]),
                b_x=b_x,
                AXIS=0,
                WITH_MEAN=WITH_MEAN,
            )
    else:
        b_max = tl.max(b_x, 1)
        b_e = tl.exp2(b_x - b_max[:, None])
        store_sums(
            p_sums=p_rows,
            i_t=i_n,
            tiles=tiles_n,
            o_x=o_c,
            length=length,
            b_max=b_max,
            b_e=b_e,
            b_x=b_x,
            AXIS=1,
            WITH_MEAN=WITH_MEAN,
        )
        if STORE:
            m_s = (o_c < length)[:, None] & (o_n < m)[None, :]
            p_s = p_stored + o_c.to(tl.int64)[:, None] * m + o_n[None, :]
            tl.store(p_s, (b_e * stored_scale).to(p_stored.dtype.element_ty), mask=m_s)


@triton.jit
def store_sums(p_sums, i_t, tiles, o_x, length, b_max, b_e, b_x, AXIS: tl.constexpr, WITH_MEAN: tl.constexpr):
    """Write tile i_t of the partial sums [2 or 3, tiles, length]: b_max, and the sums of b_e and b_e * b_x along AXIS."""
    p_t = p_sums + i_t.to(tl.int64) * length + o_x
    plane = tl.cast(tiles, tl.int64) * length  # not tiles.to: a launch makes a constant of an integer that is 1
    tl.store(p_t, b_max, mask=o_x < length)
    tl.store(p_t + plane, tl.sum(b_e, AXIS), mask=o_x < length)
    if WITH_MEAN:
        tl.store(p_t + 2 * plane, tl.sum(b_e * b_x, AXIS), mask=o_x < length)
