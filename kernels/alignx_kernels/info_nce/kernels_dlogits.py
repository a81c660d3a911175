"""The kernels of dlogits, d loss / d similarity: from similarities computed again, or from the stored roots of exponentials.

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
    stride_s,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    EVEN_D: tl.constexpr,
    INPUT_PRECISION: tl.constexpr,
    HAS_IDS: tl.constexpr,
    COLUMNS: tl.constexpr,
    UNIT_QUERIES: tl.constexpr,
):
    """dlogits [C, M] = dlogits_scale * temperature * d loss / d (q_i . k_j) under the cotangents g [N] of the losses.

    temperature * d loss / d (q_i . k_j) = (g_i (exp2(x_ij - lse_i) - [i = j])) / (|q_i| |k_j|); with COLUMNS the mean of this and the
    same of the columns. queries and keys as in `statistics_kernel`. UNIT_QUERIES leaves out 1 / |q_i|, for products with q_i / |q_i|. p_cotangent may be None, for ones. The diagonal is subtracted in fp32, before rounding. p_dlogits has rows
    of stride_s, a multiple of 16, with zeros from column m on. Floor: U, one exponential per element, and C * M elements written.
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
    o_m = start_m + tl.arange(0, BLOCK_M)
    scale = exp2_scale(p_temperature)
    halved = halvings(scale)
    root_scale = tl.exp2(-halved.to(tl.float32))
    b_row, b_qid = row_factors(p_inverse_q=p_inverse_q, p_query_ids=p_query_ids, scale=scale, o_m=o_m, n=n, HAS_IDS=HAS_IDS)
    b_lse_factor, b_weight = log_sum_factors(
        p_lse=p_row_lse, p_cotangent=p_cotangent, root_scale=root_scale, o_x=o_m, n=n, COLUMNS=COLUMNS
    )
    b_out = output_factor(p_inverse_q, p_dlogits_scale, o_m, n, UNIT_QUERIES)
    b_diagonal = b_weight * 2 if COLUMNS else b_weight
    for i_part in tl.static_range(BLOCK_N // PART):
        o_n = start_n + i_part * PART + tl.arange(0, PART)
        b_part = (
            loaded_part(queries, o_m - row_start, o_n, row_end - row_start, m, stride_q)
            if keys is None
            else column_part(b_dot, i_part)
        )
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
        b_g = softmax_gradient(
            b_root=tl.exp2(b_x * root_scale),
            b_lse_factor=b_lse_factor,
            b_weight=b_weight,
            p_column_lse=p_column_lse,
            p_cotangent=p_cotangent,
            halved=halved,
            root_scale=root_scale,
            o_n=o_n,
            n=n,
            COLUMNS=COLUMNS,
        )
        b_g = tl.where(o_m[:, None] == o_n[None, :], b_g - b_diagonal[:, None], b_g)
        store_dlogits(
            b_g=b_g,
            b_out=b_out,
            p_inverse_k=p_inverse_k,
            p_dlogits=p_dlogits,
            o_c=o_m - row_start,
            o_n=o_n,
            length=row_end - row_start,
            m=m,
            stride_s=stride_s,
        )


@triton.jit
def stored_dlogits_kernel(
    p_stored,
    p_dlogits,
    p_row_lse,
    p_column_lse,
    p_positive,
    p_cotangent,
    p_inverse_q,
    p_inverse_k,
    p_temperature,
    p_dlogits_scale,
    row_start,
    row_end,
    n,
    m,
    stride_s,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    COLUMNS: tl.constexpr,
    UNIT_QUERIES: tl.constexpr,
):
    """What `dlogits_kernel` computes, from the roots that `statistics_kernel` stored: p_stored, p_dlogits [C, stride_s].

    p_dlogits may be p_stored. The diagonal is computed from the positives [N], because that of the roots is rounded.
    Floor: reads and writes C * M elements once.
    """
    o_c = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    o_m, o_n = row_start + o_c, tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    length = row_end - row_start
    halved = halvings(exp2_scale(p_temperature))
    root_scale = tl.exp2(-halved.to(tl.float32))
    b_lse_factor, b_weight = log_sum_factors(
        p_lse=p_row_lse, p_cotangent=p_cotangent, root_scale=root_scale, o_x=o_m, n=n, COLUMNS=COLUMNS
    )
    m_s = (o_c < length)[:, None] & (o_n < stride_s)[None, :]
    b_root = tl.load(p_stored + o_c.to(tl.int64)[:, None] * stride_s + o_n[None, :], mask=m_s, other=0).to(tl.float32)
    b_g = softmax_gradient(
        b_root=b_root,
        b_lse_factor=b_lse_factor,
        b_weight=b_weight,
        p_column_lse=p_column_lse,
        p_cotangent=p_cotangent,
        halved=halved,
        root_scale=root_scale,
        o_n=o_n,
        n=n,
        COLUMNS=COLUMNS,
    )
    b_positive = tl.load(p_positive + o_m, mask=o_m < n, other=0)
    b_diagonal = tl.exp2(b_positive - tl.load(p_row_lse + o_m, mask=o_m < n, other=0)) - 1
    if COLUMNS:
        b_diagonal += tl.exp2(b_positive - tl.load(p_column_lse + o_m, mask=o_m < n, other=0)) - 1
    b_g = tl.where(o_m[:, None] == o_n[None, :], (b_diagonal * b_weight)[:, None], b_g)
    store_dlogits(
        b_g=b_g,
        b_out=output_factor(p_inverse_q, p_dlogits_scale, o_m, n, UNIT_QUERIES),
        p_inverse_k=p_inverse_k,
        p_dlogits=p_dlogits,
        o_c=o_c,
        o_n=o_n,
        length=length,
        m=m,
        stride_s=stride_s,
    )


@triton.jit
def log_sum_factors(p_lse, p_cotangent, root_scale, o_x, n, COLUMNS: tl.constexpr):
    """exp2(-lse / 2^halvings), and the cotangent (1 where p_cotangent is None), halved with COLUMNS, of queries or columns o_x; 0 from n on."""
    b_factor = tl.exp2(-tl.load(p_lse + o_x, mask=o_x < n, other=0) * root_scale)
    b_weight = tl.where(o_x < n, 1.0, 0.0)
    if p_cotangent is not None:
        b_weight = tl.load(p_cotangent + o_x, mask=o_x < n, other=0)
    if COLUMNS:
        b_weight = b_weight * 0.5
    return tl.where(o_x < n, b_factor, 0.0), b_weight


@triton.jit
def softmax_gradient(
    b_root,
    b_lse_factor,
    b_weight,
    p_column_lse,
    p_cotangent,
    halved,
    root_scale,
    o_n,
    n,
    COLUMNS: tl.constexpr,
):
    """weight_i exp2(x_ij - lse_i), with COLUMNS plus the same of the columns, from the roots of exp2(x): [rows, columns o_n].

    b_lse_factor, b_weight [rows]: from `log_sum_factors`.
    """
    if COLUMNS:
        b_col_factor, b_col_weight = log_sum_factors(
            p_lse=p_column_lse, p_cotangent=p_cotangent, root_scale=root_scale, o_x=o_n, n=n, COLUMNS=COLUMNS
        )
        if halved == 0:
            b_g = b_root * ((b_lse_factor * b_weight)[:, None] + (b_col_factor * b_col_weight)[None, :])
        else:
            b_g = raise_root(b_root * b_lse_factor[:, None], halved) * b_weight[:, None]
            b_g += raise_root(b_root * b_col_factor[None, :], halved) * b_col_weight[None, :]
    else:
        b_g = raise_root(b_root * b_lse_factor[:, None], halved) * b_weight[:, None]
    return b_g


@triton.jit
def output_factor(p_inverse_q, p_dlogits_scale, o_m, n, UNIT_QUERIES: tl.constexpr):
    """What dlogits of the rows o_m are multiplied by before they are rounded."""
    b_factor = tl.load(p_dlogits_scale)
    if UNIT_QUERIES:
        b_factor += tl.zeros(o_m.shape, tl.float32)
    else:
        b_factor *= tl.load(p_inverse_q + o_m, mask=o_m < n, other=0)
    return b_factor


@triton.jit
def store_dlogits(b_g, b_out, p_inverse_k, p_dlogits, o_c, o_n, length, m, stride_s):
    """b_g * b_out_i / |k_j|, rounded and written to rows o_c of p_dlogits [length, stride_s]; zeros from column m on."""
    b_col = tl.load(p_inverse_k + o_n, mask=o_n < m, other=0)
    p_s = p_dlogits + o_c.to(tl.int64)[:, None] * stride_s + o_n[None, :]
    m_s = (o_c < length)[:, None] & (o_n < stride_s)[None, :]
    tl.store(p_s, (b_g * b_out[:, None] * b_col[None, :]).to(p_dlogits.dtype.element_ty), mask=m_s)
