"""What the InfoNCE kernels that compute similarities share: the product of a tile, scaling, masks, and the order of tiles.

Similarities are in the exp2 domain: x_ij = log2(e) * cos(q_i, k_j) / temperature, computed in fp32 from raw vectors by folding
log2(e) / (|q_i| |k_j| temperature) into the accumulator. Masks are recomputed from the ids. No atomics and no locks: every value has
one writer, and partial results are merged in a fixed order, so that results repeat bit for bit.

Naming: `i_` index of a program, `o_` offsets, `m_` mask, `p_` pointer, `b_` block in registers. N queries, M keys, D hidden width,
C rows of a chunk; U = 2 * C * M * D operations are the cost of one product over a chunk.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# (Triton compiles these functions: their arguments have Triton's types, which mypy does not know.)

import math

import triton
import triton.language as tl

from .problem import LEFT_OUT as _LEFT_OUT

LEFT_OUT = tl.constexpr(_LEFT_OUT)
LOG2_E = tl.constexpr(math.log2(math.e))
LN_2 = tl.constexpr(math.log(2))
# |x_ij| <= log2(e) / temperature, for cosines. Up to PLAIN (temperature 0.024) exp2(x) and sums of 2^40 of them stay far within fp32 and
# bf16 without any maximum being subtracted; roots may come to 2^WIDE, because the sums are taken of their powers under a maximum.
PLAIN = tl.constexpr(60.0)
WIDE = tl.constexpr(100.0)
# After a product a tile is taken in parts of so many columns. On Hopper 128 x 256 tiles then need no spilled registers.
PART = tl.constexpr(32)
# Row tiles that go through the keys side by side, so that a key tile is still in L2 when the next one reads it.
GROUP = tl.constexpr(8)


@triton.jit
def dot_tile(
    queries,
    keys,
    start_m,
    start_n,
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
):
    """q_i . k_j of the tile that starts at (start_m, start_n), in fp32: [BLOCK_M, BLOCK_N].

    Entries outside the matrix are finite and mean nothing.

    queries [N, D] and keys [M, D] are tensor descriptors (loads by the copy engine of sm_90 and later), or pointers.
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
def loaded_part(p_product, o_c, o_n, length, m, stride_p):
    """q_i . k_j of the rows o_c and columns o_n, from a product [length, M] in fp32 that is there already."""
    p_p = p_product + o_c.to(tl.int64)[:, None] * stride_p + o_n[None, :]
    return tl.load(p_p, mask=(o_c < length)[:, None] & (o_n < m)[None, :], other=0)


@triton.jit
def exp2_scale(p_temperature):
    """log2(e) / temperature."""
    return tl.full([], LOG2_E, tl.float32) / tl.load(p_temperature)


@triton.jit
def row_factors(p_inverse_q, p_query_ids, scale, o_m, n, HAS_IDS: tl.constexpr):
    """What all parts of a tile need of its rows [BLOCK_M]: scale / |q_i|, and the ids. scale: from `exp2_scale`."""
    b_row = tl.load(p_inverse_q + o_m, mask=o_m < n, other=0) * scale
    b_qid = b_row
    if HAS_IDS:
        b_qid = tl.load(p_query_ids + o_m, mask=o_m < n, other=0)
    return b_row, b_qid


@triton.jit
def similarity_tile(b_dot, b_row, b_qid, p_inverse_k, p_key_ids, o_m, o_n, n, m, HAS_IDS: tl.constexpr):
    """x_ij of one tile from q_i . k_j, with `LEFT_OUT` for masked negatives and outside the matrix. b_dot, result: [BLOCK_M, BLOCK_N].

    b_row, b_qid [BLOCK_M]: from `row_factors`.
    """
    b_col = tl.load(p_inverse_k + o_n, mask=o_n < m, other=0)  # [BLOCK_N]
    b_x = b_dot * b_row[:, None] * b_col[None, :]
    m_x = (o_m < n)[:, None] & (o_n < m)[None, :]
    if HAS_IDS:
        b_kid = tl.load(p_key_ids + o_n, mask=o_n < m, other=0)
        m_x = m_x & ((b_qid[:, None] != b_kid[None, :]) | (o_m[:, None] == o_n[None, :]))
    return tl.where(m_x, b_x, LEFT_OUT)


@triton.jit
def halvings(scale):
    """How often x must be halved so that its exp2 stays in range: 0 while |x| <= scale is at most `PLAIN`.

    One exponential then serves every sum at every temperature: w = exp2(x / 2^h) is stored or kept in registers, and
    exp2(x - a) = (w exp2(-a / 2^h))^(2^h) costs a multiplication for a and h more, and cannot overflow for a no smaller than x.
    """
    needed = tl.minimum(tl.maximum(tl.ceil(tl.log2(scale / WIDE)), 1.0), 24.0)
    return tl.where(scale <= PLAIN, 0.0, needed).to(tl.int32)


@triton.jit
def raise_root(b_root, halved):
    """b_root^(2^halved)."""
    for _ in range(halved):
        b_root = b_root * b_root
    return b_root


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
