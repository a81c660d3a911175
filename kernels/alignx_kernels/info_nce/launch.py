"""InfoNCE on a GPU: the order of launches, and one function per kernel.

Rows are taken in chunks, so that neither the partial sums of tiles nor dlogits, d loss / d similarity, grow with N x M. A chunk of
dlogits has the dtype of the inputs; dQ = dlogits @ K and dK += dlogits^T @ Q are products of the library with fp32 results. Costs in
units of one product U = 2 * N * M * D: 1 for the loss; one direction with its gradients 3, computed within the forward from the stored
exponentials; otherwise 3 more in the backward, which recomputes the similarities. Gradients that nobody asked for are left out.

Shape legend: N queries, M keys, D hidden width, C rows of a chunk, X rows of either side.
"""

from typing import NamedTuple

import torch

from ..common.dispatch import on_device
from ..common.tiles import cdiv
from .gradients import Gradients, allocate_gradients, multiply
from .kernels_dlogits import dlogits_kernel, stored_dlogits_kernel
from .kernels_merge import finish_kernel, merge_kernel
from .kernels_statistics import statistics_kernel
from .kernels_vectors import norms_kernel, project_kernel
from .plan import LaunchPlan, Operands, prepare
from .problem import ForwardResult, Inputs, Statistics, Wanted, saved_gradient_dtype


class Side(NamedTuple):
    """One side for `launch_project`: dlogits @ vectors of the other side, this side's vectors and norms, the gradient to be written."""

    product_XD: torch.Tensor
    vectors_XD: torch.Tensor
    inverse_X: torch.Tensor
    gradient_XD: torch.Tensor


def forward(inputs: Inputs, wanted: Wanted, take_gradients: bool) -> ForwardResult:
    """Losses and statistics; with `take_gradients` (one direction only) also the wanted gradients of queries and keys."""
    with on_device(inputs.keys_MD):
        plan, operands = prepare(inputs, stores_dlogits=take_gradients)
        result = _allocate_result(*launch_norms(plan, operands), inputs.symmetric, wanted)
        statistics, positive_N = result.statistics, torch.empty_like(result.loss_N)
        gradients = None
        if take_gradients:
            gradients = allocate_gradients(plan, operands, statistics, wanted, saved_gradient_dtype(plan.dtype), None)
        chunks, planes = plan.chunks(), 3 if wanted.temperature else 2
        # With several chunks the sums of columns are complete after the last one only.
        row_state = column_state = None
        if inputs.symmetric and len(chunks) > 1:
            row_state, column_state = (positive_N.new_empty(planes, 1, plan.n) for _ in range(2))
        for start, stop in chunks:
            stored_CM = None if gradients is None else gradients.stored_CM
            row_sums, column_sums = launch_statistics(
                plan, operands, statistics, start, stop, planes, inputs.symmetric, positive_N, stored_CM
            )
            if row_state is None or column_state is None or column_sums is None:
                launch_finish(plan, operands, start, stop, row_sums, column_sums, positive_N, result)
            else:
                launch_merge(plan, row_sums, row_state[:, 0, start:stop], is_first=True)
                launch_merge(plan, column_sums, column_state, is_first=start == 0)
            if gradients is not None:
                launch_stored_dlogits(plan, operands, statistics, start, stop, positive_N, gradients)
                del stored_CM  # so that `add_chunk` can free the dlogits
                add_chunk(plan, operands, statistics, gradients, start, stop)
        if row_state is not None:
            launch_finish(plan, operands, 0, plan.n, row_state, column_state, positive_N, result)
        if gradients is None:
            return result
        return result._replace(grad_queries_ND=gradients.queries_ND, grad_keys_MD=gradients.keys_MD)


def _allocate_result(inverse_N: torch.Tensor, inverse_M: torch.Tensor, symmetric: bool, wanted: Wanted) -> ForwardResult:
    column_lse_N = torch.empty_like(inverse_N) if symmetric else None
    statistics = Statistics(torch.empty_like(inverse_N), inverse_N, inverse_M, column_lse_N)
    return ForwardResult(torch.empty_like(inverse_N), torch.empty_like(inverse_N) if wanted.temperature else None, statistics)


def backward(
    inputs: Inputs, statistics: Statistics, cotangent_N: torch.Tensor, wanted: Wanted
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Gradients at queries and keys of sum_i cotangent_i * loss_i, from recomputed similarities."""
    with on_device(inputs.keys_MD):
        plan, operands = prepare(inputs, stores_dlogits=True)
        cotangent_N = cotangent_N.float().contiguous()
        gradients = allocate_gradients(plan, operands, statistics, wanted, plan.dtype, cotangent_N)
        for start, stop in plan.chunks():
            launch_dlogits(plan, operands, statistics, start, stop, cotangent_N, gradients)
            add_chunk(plan, operands, statistics, gradients, start, stop)
        return gradients.queries_ND, gradients.keys_MD


def add_chunk(plan: LaunchPlan, operands: Operands, statistics: Statistics, gradients: Gradients, start: int, stop: int) -> None:
    """Add what the dlogits of these rows contribute; after the last rows the gradients are complete."""
    assert gradients.dlogits_CM is not None
    dlogits_CM = _rows(gradients.dlogits_CM, 0, stop - start)
    if plan.stride > plan.m:
        dlogits_CM = dlogits_CM[:, : plan.m]
    queries_CD = _rows(operands.queries_ND, start, stop)
    sides = []
    if gradients.query_product_CD is not None and gradients.queries_ND is not None:
        product_CD = _rows(gradients.query_product_CD, 0, stop - start)
        multiply(dlogits_CM, operands.keys_MD, product_CD, accumulate=False)
        inverse_C, gradient_CD = _rows(statistics.inverse_N, start, stop), _rows(gradients.queries_ND, start, stop)
        sides.append(Side(product_CD, queries_CD, inverse_C, gradient_CD))
    product_MD = gradients.key_product_MD
    if product_MD is not None:
        multiply(dlogits_CM.T, queries_CD, product_MD, accumulate=start > 0)
        if stop == plan.n:
            gradients.dlogits_CM = gradients.stored_CM = None
            del dlogits_CM  # the last name of it: the gradient takes its memory
            in_place = gradients.dtype == torch.float32
            gradients.keys_MD = product_MD if in_place else torch.empty_like(product_MD, dtype=gradients.dtype)
            sides.append(Side(product_MD, operands.keys_MD, statistics.inverse_M, gradients.keys_MD))
    if sides:
        launch_project(plan, operands.temperature, gradients.dlogits_scale, sides)


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
        queries=operands.query_loads,
        keys=operands.key_loads,
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
        stride_q=operands.queries_ND.stride(0),
        stride_k=operands.keys_MD.stride(0),
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
    gradients: Gradients,
) -> None:
    """Turn the stored roots of these rows into dlogits."""
    block_m, block_n = plan.stored.blocks["BLOCK_M"], plan.stored.blocks["BLOCK_N"]
    stored_dlogits_kernel[(cdiv(stop - start, block_m), cdiv(plan.stride, block_n))](
        p_stored=gradients.stored_CM,
        p_dlogits=gradients.dlogits_CM,
        p_row_lse=statistics.row_lse_N,
        p_column_lse=statistics.column_lse_N,
        p_positive=positive_N,
        p_cotangent=None,
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
        **plan.stored.options,
    )


def launch_dlogits(
    plan: LaunchPlan,
    operands: Operands,
    statistics: Statistics,
    start: int,
    stop: int,
    cotangent_N: torch.Tensor,
    gradients: Gradients,
) -> None:
    """Compute the dlogits of these rows under one cotangent per row."""
    tiles_m, tiles_n = plan.tiles(start, stop)
    dlogits_kernel[(tiles_m * tiles_n,)](
        queries=operands.query_loads,
        keys=operands.key_loads,
        p_inverse_q=statistics.inverse_N,
        p_inverse_k=statistics.inverse_M,
        p_temperature=operands.temperature,
        p_query_ids=operands.query_ids,
        p_key_ids=operands.key_ids,
        p_row_lse=statistics.row_lse_N,
        p_column_lse=statistics.column_lse_N,
        p_cotangent=cotangent_N,
        p_dlogits_scale=gradients.dlogits_scale,
        p_dlogits=gradients.dlogits_CM,
        row_start=start,
        row_end=stop,
        n=plan.n,
        m=plan.m,
        d=plan.d,
        stride_q=operands.queries_ND.stride(0),
        stride_k=operands.keys_MD.stride(0),
        stride_s=plan.stride,
        **_product_settings(plan, operands),
        COLUMNS=statistics.column_lse_N is not None,
    )


def launch_project(plan: LaunchPlan, temperature: torch.Tensor, dlogits_scale: torch.Tensor, sides: list[Side]) -> None:
    """Write the gradients of one or two sides."""
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
        rows_a=rows_a,
        rows_b=rows_b,
        d=plan.d,
        stride_a=first.vectors_XD.stride(0),
        stride_b=second.vectors_XD.stride(0),
        **plan.vectors.options,
    )


def _product_settings(plan: LaunchPlan, operands: Operands) -> dict[str, int | bool | str]:
    """Settings common to both kernels that compute similarities."""
    return {
        **plan.products.options,
        "EVEN_D": plan.d % plan.products.blocks["BLOCK_K"] == 0,
        "INPUT_PRECISION": "ieee" if plan.dtype == torch.float32 else "tf32",
        "HAS_IDS": operands.query_ids is not None,
    }


def _rows(tensor: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    # No view where it is all rows: the six views of a small problem take the host as long as half a launch.
    return tensor if stop - start == tensor.shape[0] else tensor[start:stop]
