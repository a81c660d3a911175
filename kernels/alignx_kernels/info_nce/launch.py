"""InfoNCE on a GPU: the order of launches, and one function per kernel.

Rows are taken in chunks, so that neither the partial sums of tiles nor dlogits, d loss / d similarity, grow with N x M. A chunk of
dlogits has the dtype of the inputs; dQ = dlogits @ K and dK += dlogits^T @ Q are products of the library with fp32 results. Costs in
units of one product U = 2 * N * M * D: 1 for the loss and 2 for both gradients, which are computed from the roots of exponentials that
the first product stored. In both directions, and under one cotangent per row, they wait until all rows are done: similarities beyond
`tiles.KEPT_BYTES` are then computed again, at most 1 more. Gradients that nobody asked for are left out.

Shape legend: N queries, M keys, D hidden width, C rows of a chunk, K rows whose roots are kept, X rows of either side.
"""

from typing import NamedTuple

import torch
from triton.tools.tensor_descriptor import TensorDescriptor

from ..common.dispatch import on_device
from ..common.tiles import cdiv
from .gradients import Gradients, allocate_gradients, multiply, place, rows_of
from .kernels_dlogits import dlogits_kernel, stored_dlogits_kernel
from .kernels_merge import finish_kernel, merge_kernel
from .kernels_statistics import statistics_kernel
from .kernels_vectors import norms_kernel, project_kernel
from .plan import LaunchPlan, Operands, prepare
from .problem import ForwardResult, Inputs, Options, Statistics, Wanted, saved_gradient_dtype
from .tiles import keeps_all, stored_dtype


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


def forward(inputs: Inputs, options: Options) -> ForwardResult:
    """Losses and statistics, and the gradients or the kept roots that `options` ask for."""
    with on_device(inputs.keys_MD):
        plan, operands = prepare(inputs, stores_dlogits=options.forward_computes_gradients)
        # With several launches the sums of columns are complete after the last one only.
        waits = inputs.symmetric and plan.strip < plan.n
        result = _allocate_result(plan, *launch_norms(plan, operands), options)
        statistics, share = result.statistics, options.share(plan.n)
        positive_N = torch.empty_like(result.loss_N) if statistics.positive_N is None else statistics.positive_N
        gradients = None
        if options.forward_computes_gradients:
            roots_KM = positive_N.new_empty(plan.kept if waits else plan.chunk, plan.stride, dtype=stored_dtype(plan.dtype))
            dtype = saved_gradient_dtype(plan.dtype)
            gradients = allocate_gradients(plan, operands, statistics, options.wanted, dtype, roots_KM)
            del roots_KM  # so that the last chunk can free it
        planes = 3 if options.wanted.temperature else 2
        states = [positive_N.new_empty(planes, 1, plan.n) for _ in range(2)] if waits else []
        for start, stop in plan.chunks():
            stored_CM = _roots(plan, statistics, gradients, waits, start, stop)
            for first, last in plan.strips(start, stop):
                row_sums, column_sums = launch_statistics(
                    plan,
                    operands,
                    statistics,
                    first,
                    last,
                    planes,
                    inputs.symmetric,
                    positive_N,
                    None if stored_CM is None else rows_of(stored_CM, first - start, last - start),
                )
                if waits and column_sums is not None:
                    launch_merge(plan, row_sums, states[0][:, 0, first:last], is_first=True)
                    launch_merge(plan, column_sums, states[1], is_first=first == 0)
                else:
                    launch_finish(plan, operands, first, last, row_sums, column_sums, positive_N, share, result)
            del stored_CM  # so that `add_chunk` can free it
            if gradients is not None and not waits:
                launch_stored_dlogits(plan, operands, statistics, start, stop, positive_N, None, gradients)
                add_chunk(plan, operands, statistics, gradients, start, stop, share)
        if waits:
            launch_finish(plan, operands, 0, plan.n, states[0], states[1], positive_N, share, result)
        if waits and gradients is not None:
            for start, stop in plan.chunks():
                if stop <= plan.kept:
                    launch_stored_dlogits(plan, operands, statistics, start, stop, positive_N, None, gradients)
                else:
                    _compute_dlogits(plan, operands, statistics, start, stop, None, gradients)
                add_chunk(plan, operands, statistics, gradients, start, stop, share)
        if gradients is None:
            return result
        return result._replace(grad_queries_ND=gradients.queries_ND, grad_keys_MD=gradients.keys_MD)


def _allocate_result(plan: LaunchPlan, inverse_N: torch.Tensor, inverse_M: torch.Tensor, options: Options) -> ForwardResult:
    column_lse_N = torch.empty_like(inverse_N) if options.symmetric else None
    statistics = Statistics(torch.empty_like(inverse_N), inverse_N, inverse_M, column_lse_N)
    if options.backward_computes_gradients and keeps_all(plan.n, plan.m, plan.dtype):
        kept_NX = inverse_N.new_empty(plan.n, plan.stride, dtype=stored_dtype(plan.dtype))
        statistics = statistics._replace(positive_N=torch.empty_like(inverse_N), kept_NX=kept_NX)
    slope_N = torch.empty_like(inverse_N) if options.wanted.temperature else None
    return ForwardResult(torch.empty_like(inverse_N), slope_N, statistics)


def _roots(
    plan: LaunchPlan, statistics: Statistics, gradients: Gradients | None, waits: bool, start: int, stop: int
) -> torch.Tensor | None:
    """Where the roots of these rows are stored; None where they are not."""
    buffer_KM = statistics.kept_NX if gradients is None else gradients.roots_KM
    return None if buffer_KM is None or (waits and stop > buffer_KM.shape[0]) else place(buffer_KM, start, stop)


def backward(
    inputs: Inputs, statistics: Statistics, cotangent_N: torch.Tensor, wanted: Wanted
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    """Gradients at queries and keys of sum_i cotangent_i * loss_i, from kept roots or from similarities computed again."""
    with on_device(inputs.keys_MD):
        plan, operands = prepare(inputs, stores_dlogits=True)
        cotangent_N = cotangent_N.float().contiguous()
        gradients = allocate_gradients(plan, operands, statistics, wanted, plan.dtype, None, cotangent_N)
        for start, stop in plan.chunks():
            if statistics.positive_N is not None:
                launch_stored_dlogits(plan, operands, statistics, start, stop, statistics.positive_N, cotangent_N, gradients)
            else:
                _compute_dlogits(plan, operands, statistics, start, stop, cotangent_N, gradients)
            add_chunk(plan, operands, statistics, gradients, start, stop, share=1.0)
        return gradients.queries_ND, gradients.keys_MD


def _compute_dlogits(
    plan: LaunchPlan,
    operands: Operands,
    statistics: Statistics,
    start: int,
    stop: int,
    cotangent_N: torch.Tensor | None,
    gradients: Gradients,
) -> None:
    """The dlogits of these rows from similarities that are computed again."""
    dlogits_CM = gradients.dlogits(start, stop)
    for first, last in plan.strips(start, stop):
        strip_CM = rows_of(dlogits_CM, first - start, last - start)
        launch_dlogits(plan, operands, statistics, first, last, cotangent_N, gradients.dlogits_scale, strip_CM)


def _similarity_operands(plan: LaunchPlan, operands: Operands, start: int, stop: int) -> SimilarityOperands:
    """What the kernels of these rows take similarities from: vectors, or their product by the library."""
    if not plan.use_library:
        strides = operands.queries_ND.stride(0), operands.keys_MD.stride(0)
        return SimilarityOperands(operands.query_loads, operands.key_loads, *strides)
    product_CM = operands.queries_ND.new_empty(stop - start, plan.stride, dtype=torch.float32)
    queries_CD = rows_of(operands.queries_ND, start, stop)
    multiply(queries_CD, operands.keys_MD.T, product_CM[:, : plan.m], accumulate=False)
    return SimilarityOperands(product_CM, None, plan.stride, 0)


def add_chunk(
    plan: LaunchPlan, operands: Operands, statistics: Statistics, gradients: Gradients, start: int, stop: int, share: float
) -> None:
    """Add what the dlogits of these rows contribute; after the last rows the gradients, times `share`, are complete."""
    dlogits_CM = gradients.dlogits(start, stop)
    if plan.stride > plan.m:
        dlogits_CM = dlogits_CM[:, : plan.m]
    queries_CD = rows_of(operands.queries_ND, start, stop)
    sides = []
    if gradients.query_product_CD is not None and gradients.queries_ND is not None:
        product_CD = rows_of(gradients.query_product_CD, 0, stop - start)
        multiply(dlogits_CM, operands.keys_MD, product_CD, accumulate=False)
        inverse_C, gradient_CD = rows_of(statistics.inverse_N, start, stop), rows_of(gradients.queries_ND, start, stop)
        sides.append(Side(product_CD, queries_CD, inverse_C, gradient_CD, plan.unit_queries))
    product_MD = gradients.key_product_MD
    if product_MD is not None:
        other_CD = queries_CD
        if plan.unit_queries:
            other_CD = (queries_CD * rows_of(statistics.inverse_N, start, stop)[:, None]).to(plan.dtype)
        multiply(dlogits_CM.T, other_CD, product_MD, accumulate=start > 0)
        if stop == plan.n:
            gradients.dlogits_CM = gradients.roots_KM = None
            del dlogits_CM  # the last name of it: the gradient takes its memory
            in_place = gradients.dtype == torch.float32
            gradients.keys_MD = product_MD if in_place else torch.empty_like(product_MD, dtype=gradients.dtype)
            sides.append(Side(product_MD, operands.keys_MD, statistics.inverse_M, gradients.keys_MD, False))
    if sides:
        launch_project(plan, operands.temperature, gradients.dlogits_scale, share, sides)


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
