"""The launches of InfoNCE, one function per kernel.

Shape legend: N queries, M keys, D hidden width, C rows of a chunk or strip, X rows of either side.
"""

from typing import NamedTuple

import torch
from triton.tools.tensor_descriptor import TensorDescriptor

from ..common.tiles import cdiv
from .gradients import Gradients, multiply, place, rows_of
from .kernels_dlogits import dlogits_kernel, stored_dlogits_kernel
from .kernels_merge import finish_kernel, merge_kernel
from .kernels_statistics import statistics_kernel
from .kernels_vectors import norms_kernel, project_kernel
from .plan import LaunchPlan, Operands
from .problem import ForwardResult, Statistics


class SimilarityOperands(NamedTuple):
    """Arguments of the kernels that compute similarities, under their names there; keys is None where queries is a product."""

    queries: torch.Tensor | TensorDescriptor
    keys: torch.Tensor | TensorDescriptor | None
    stride_q: int
    stride_k: int


class Side(NamedTuple):
    """One side for `launch_project`: dlogits @ vectors of the other side, this side's vectors and norms, the gradient to be written."""

    product_XD: torch.Tensor
    vectors_XD: torch.Tensor
    inverse_X: torch.Tensor
    gradient_XD: torch.Tensor
    lacks_inverse: bool  # whether dlogits were made without 1 / |x| of this side


def launch_norms(plan: LaunchPlan, operands: Operands) -> tuple[torch.Tensor, torch.Tensor]:
    """1 / |x| of queries [N] and keys [M]."""
    inverse_N, inverse_M = (operands.keys_MD.new_empty(rows, dtype=torch.float32) for rows in (plan.n, plan.m))
    norms_kernel[(plan.vector_groups(plan.n) + plan.vector_groups(plan.m),)](
        p_queries=operands.queries_ND,
        p_keys=operands.keys_MD,
        p_inverse_q=inverse_N,
        p_inverse_k=inverse_M,
        n=plan.n,
        m=plan.m,
        d=plan.d,
        stride_q=operands.queries_ND.stride(0),
        stride_k=operands.keys_MD.stride(0),
        **plan.vectors.options,
    )
    return inverse_N, inverse_M


def launch_statistics(
    plan: LaunchPlan,
    operands: Operands,
    statistics: Statistics,
    start: int,
    stop: int,
    planes: int,
    with_columns: bool,
    positive_N: torch.Tensor,
    stored_CM: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Partial sums of rows [planes, column tiles, C] and of columns [planes, row tiles, N]; writes the positives and `stored_CM`.

    planes: 2, or 3 where the temperature wants a gradient.
    """
    tiles_m, tiles_n = plan.tiles(start, stop)
    row_sums = positive_N.new_empty(planes, tiles_n, stop - start)
    column_sums = positive_N.new_empty(planes, tiles_m, plan.n) if with_columns else None
    statistics_kernel[(tiles_m * tiles_n,)](
        **_similarity_operands(plan, operands, start, stop)._asdict(),
        p_inverse_q=statistics.inverse_N,
        p_inverse_k=statistics.inverse_M,
        p_temperature=operands.temperature,
        p_query_ids=operands.query_ids,
        p_key_ids=operands.key_ids,
        p_rows=row_sums,
        p_columns=column_sums,
        p_positive=positive_N,
        p_stored=stored_CM,
        row_start=start,
        row_end=stop,
        n=plan.n,
        m=plan.m,
        d=plan.d,
        stride_s=plan.stride,
        **_product_settings(plan, operands),
        COLUMNS=with_columns,
        WITH_MEAN=planes == 3,
        STORE=stored_CM is not None,
    )
    return row_sums, column_sums


def launch_merge(plan: LaunchPlan, sums: torch.Tensor, state: torch.Tensor, is_first: bool) -> None:
    """Merge partial sums [planes, tiles, length] into `state` [planes, length] or [planes, 1, length]."""
    planes, tiles, length = sums.shape
    merge_kernel[(cdiv(length, plan.merging.blocks["BLOCK_L"]),)](
        p_sums=sums,
        p_state=state,
        tiles=tiles,
        length=length,
        stride=state.stride(0),
        CONTINUE=not is_first,
        WITH_MEAN=planes == 3,
        **plan.merging.options,
    )


def launch_finish(
    plan: LaunchPlan,
    operands: Operands,
    start: int,
    stop: int,
    row_sums: torch.Tensor,
    column_sums: torch.Tensor | None,
    positive_N: torch.Tensor,
    share: float,
    result: ForwardResult,
) -> None:
    """Write the losses, log-sums and slopes of these rows."""
    finish_kernel[(cdiv(stop - start, plan.merging.blocks["BLOCK_L"]),)](
        p_rows=row_sums,
        p_columns=column_sums,
        p_positive=positive_N,
        p_temperature=operands.temperature,
        p_loss=result.loss_N,
        p_row_lse=result.statistics.row_lse_N,
        p_column_lse=result.statistics.column_lse_N,
        p_slope=result.slope_N,
        row_start=start,
        row_end=stop,
        row_tiles=row_sums.shape[1],
        column_tiles=0 if column_sums is None else column_sums.shape[1],
        share=share,
        COLUMNS=column_sums is not None,
        WITH_MEAN=row_sums.shape[0] == 3,
        **plan.merging.options,
    )


def launch_stored_dlogits(
    plan: LaunchPlan,
    operands: Operands,
    statistics: Statistics,
    start: int,
    stop: int,
    positive_N: torch.Tensor,
    cotangent_N: torch.Tensor | None,
    gradients: Gradients,
) -> None:
    """Turn the stored roots of these rows into dlogits, under cotangents of 1 where `cotangent_N` is None."""
    assert gradients.roots_KM is not None
    block_m, block_n = plan.stored.blocks["BLOCK_M"], plan.stored.blocks["BLOCK_N"]
    stored_dlogits_kernel[(cdiv(stop - start, block_m), cdiv(plan.stride, block_n))](
        p_stored=place(gradients.roots_KM, start, stop),
        p_dlogits=gradients.dlogits(start, stop),
        p_row_lse=statistics.row_lse_N,
        p_column_lse=statistics.column_lse_N,
        p_positive=positive_N,
        p_cotangent=cotangent_N,
        p_inverse_q=statistics.inverse_N,
        p_inverse_k=statistics.inverse_M,
        p_temperature=operands.temperature,
        p_dlogits_scale=gradients.dlogits_scale,
        row_start=start,
        row_end=stop,
        n=plan.n,
        m=plan.m,
        stride_s=plan.stride,
        COLUMNS=statistics.column_lse_N is not None,
        UNIT_QUERIES=plan.unit_queries,
        **plan.stored.options,
    )


def launch_dlogits(
    plan: LaunchPlan,
    operands: Operands,
    statistics: Statistics,
    start: int,
    stop: int,
    cotangent_N: torch.Tensor | None,
    dlogits_scale: torch.Tensor,
    dlogits_CM: torch.Tensor,
) -> None:
    """Compute the dlogits of these rows under one cotangent per row, 1 where `cotangent_N` is None."""
    tiles_m, tiles_n = plan.tiles(start, stop)
    dlogits_kernel[(tiles_m * tiles_n,)](
        **_similarity_operands(plan, operands, start, stop)._asdict(),
        p_inverse_q=statistics.inverse_N,
        p_inverse_k=statistics.inverse_M,
        p_temperature=operands.temperature,
        p_query_ids=operands.query_ids,
        p_key_ids=operands.key_ids,
        p_row_lse=statistics.row_lse_N,
        p_column_lse=statistics.column_lse_N,
        p_cotangent=cotangent_N,
        p_dlogits_scale=dlogits_scale,
        p_dlogits=dlogits_CM,
        row_start=start,
        row_end=stop,
        n=plan.n,
        m=plan.m,
        d=plan.d,
        stride_s=plan.stride,
        **_product_settings(plan, operands),
        COLUMNS=statistics.column_lse_N is not None,
        UNIT_QUERIES=plan.unit_queries,
    )


def launch_project(
    plan: LaunchPlan, temperature: torch.Tensor, dlogits_scale: torch.Tensor, share: float, sides: list[Side]
) -> None:
    """Write the gradients, times `share`, of one or two sides."""
    first, second = sides[0], sides[-1]
    rows_a, rows_b = first.product_XD.shape[0], second.product_XD.shape[0] if len(sides) == 2 else 0
    project_kernel[(plan.vector_groups(rows_a) + plan.vector_groups(rows_b),)](
        p_product_a=first.product_XD,
        p_vectors_a=first.vectors_XD,
        p_inverse_a=first.inverse_X,
        p_grad_a=first.gradient_XD,
        p_product_b=second.product_XD,
        p_vectors_b=second.vectors_XD,
        p_inverse_b=second.inverse_X,
        p_grad_b=second.gradient_XD,
        p_temperature=temperature,
        p_dlogits_scale=dlogits_scale,
        share=share,
        rows_a=rows_a,
        rows_b=rows_b,
        d=plan.d,
        stride_a=first.vectors_XD.stride(0),
        stride_b=second.vectors_XD.stride(0),
        LACKS_INVERSE_A=first.lacks_inverse,
        **plan.vectors.options,
    )


def _product_settings(plan: LaunchPlan, operands: Operands) -> dict[str, int | bool | str]:
    """Settings common to both kernels that compute similarities."""
    return {
        **plan.products.options,
        "EVEN_D": plan.d % plan.products.blocks["BLOCK_K"] == 0,
        "INPUT_PRECISION": plan.precision,
        "HAS_IDS": operands.query_ids is not None,
    }


def _similarity_operands(plan: LaunchPlan, operands: Operands, start: int, stop: int) -> SimilarityOperands:
    """What the kernels of these rows take similarities from: vectors, or their product by the library."""
    if not plan.use_library:
        strides = operands.queries_ND.stride(0), operands.keys_MD.stride(0)
        return SimilarityOperands(operands.query_loads, operands.key_loads, *strides)
    product_CM = operands.queries_ND.new_empty(stop - start, plan.stride, dtype=torch.float32)
    queries_CD = rows_of(operands.queries_ND, start, stop)
    multiply(queries_CD, operands.keys_MD.T, product_CM[:, : plan.m], accumulate=False)
    return SimilarityOperands(product_CM, None, plan.stride, 0)
