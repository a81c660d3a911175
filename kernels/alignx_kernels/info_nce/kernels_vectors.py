"""The InfoNCE kernels over single vectors: their norms, and the projection of gradients through the normalisation.

Naming: `i_` index of a program, `o_` offsets, `m_` mask, `p_` pointer, `b_` block in registers. N queries, M keys, D hidden width.
"""
# mypy: allow-untyped-defs, allow-incomplete-defs, allow-untyped-calls, allow-untyped-decorators
# (Triton compiles these functions: their arguments have Triton's types, which mypy does not know.)

import triton
import triton.language as tl


@triton.jit
def norms_kernel(
    p_queries,
    p_keys,
    p_inverse_q,
    p_inverse_k,
    n,
    m,
    d,
    stride_q,
    stride_k,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """1 / |x| of each query and key, 0 for a zero vector: p_queries [N, D], p_keys [M, D] -> p_inverse_q [N], p_inverse_k [M].

    Floor: reads (N + M) * D elements once.
    """
    i_r, tiles = tl.program_id(0), tl.cdiv(n, BLOCK_R)
    if i_r < tiles:
        row_norms(
            p_vectors=p_queries,
            p_inverse=p_inverse_q,
            i_r=i_r,
            rows=n,
            d=d,
            stride_v=stride_q,
            BLOCK_R=BLOCK_R,
            BLOCK_D=BLOCK_D,
        )
    else:
        row_norms(
            p_vectors=p_keys,
            p_inverse=p_inverse_k,
            i_r=i_r - tiles,
            rows=m,
            d=d,
            stride_v=stride_k,
            BLOCK_R=BLOCK_R,
            BLOCK_D=BLOCK_D,
        )


@triton.jit
def row_norms(p_vectors, p_inverse, i_r, rows, d, stride_v, BLOCK_R: tl.constexpr, BLOCK_D: tl.constexpr):
    """`norms_kernel` for vectors i_r * BLOCK_R and on of one side."""
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
def project_kernel(
    p_product_a,
    p_vectors_a,
    p_inverse_a,
    p_grad_a,
    p_product_b,
    p_vectors_b,
    p_inverse_b,
    p_grad_b,
    p_temperature,
    p_dlogits_scale,
    share,
    rows_a,
    rows_b,
    d,
    stride_a,
    stride_b,
    LACKS_INVERSE_A: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Gradients [rows, D] at the vectors a and b from p_product = dlogits @ vectors of the other side [rows, D].

    Removes the part along x (the Jacobian of x / |x|), undoes dlogits_scale, divides by the temperature and multiplies by `share`,
    and LACKS_INVERSE_A by 1 / |a|. p_grad may be p_product. Floor: reads rows * D products (fp32) and vectors, writes as many gradients.
    """
    i_r, tiles = tl.program_id(0), tl.cdiv(rows_a, BLOCK_R)
    factor = share / (tl.load(p_temperature) * tl.load(p_dlogits_scale))
    if i_r < tiles:
        project_rows(
            p_product=p_product_a,
            p_vectors=p_vectors_a,
            p_inverse=p_inverse_a,
            p_grad=p_grad_a,
            factor=factor,
            i_r=i_r,
            rows=rows_a,
            d=d,
            stride=stride_a,
            LACKS_INVERSE=LACKS_INVERSE_A,
            BLOCK_R=BLOCK_R,
            BLOCK_D=BLOCK_D,
        )
    else:
        project_rows(
            p_product=p_product_b,
            p_vectors=p_vectors_b,
            p_inverse=p_inverse_b,
            p_grad=p_grad_b,
            factor=factor,
            i_r=i_r - tiles,
            rows=rows_b,
            d=d,
            stride=stride_b,
            LACKS_INVERSE=False,
            BLOCK_R=BLOCK_R,
            BLOCK_D=BLOCK_D,
        )


@triton.jit
def project_rows(
    p_product,
    p_vectors,
    p_inverse,
    p_grad,
    factor,
    i_r,
    rows,
    d,
    stride,
    LACKS_INVERSE: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """`project_kernel` for vectors i_r * BLOCK_R and on of one side: factor * (g - x (g . x) / |x|^2), with g from p_product."""
    o_r = i_r * BLOCK_R + tl.arange(0, BLOCK_R)
    m_r = o_r < rows
    p_g = p_product + o_r.to(tl.int64)[:, None] * d
    p_v = p_vectors + o_r.to(tl.int64)[:, None] * stride
    b_along = tl.zeros([BLOCK_R], tl.float32)
    for i_d in range(0, d, BLOCK_D):
        o_d = i_d + tl.arange(0, BLOCK_D)[None, :]
        m_d = m_r[:, None] & (o_d < d)
        b_along += tl.sum(tl.load(p_g + o_d, mask=m_d, other=0) * tl.load(p_v + o_d, mask=m_d, other=0).to(tl.float32), 1)
    b_inverse = tl.load(p_inverse + o_r, mask=m_r, other=0)
    b_along *= b_inverse * b_inverse
    b_factor = tl.zeros([BLOCK_R], tl.float32) + factor
    if LACKS_INVERSE:
        b_factor *= b_inverse
    for i_d in range(0, d, BLOCK_D):
        o_d = i_d + tl.arange(0, BLOCK_D)[None, :]
        m_d = m_r[:, None] & (o_d < d)
        b_v = tl.load(p_v + o_d, mask=m_d, other=0).to(tl.float32)
        b_grad = (tl.load(p_g + o_d, mask=m_d, other=0) - b_v * b_along[:, None]) * b_factor[:, None]
        tl.store(p_grad + o_r.to(tl.int64)[:, None] * d + o_d, b_grad.to(p_grad.dtype.element_ty), mask=m_d)
