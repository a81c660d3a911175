"""InfoNCE on a GPU: the order of launches.

Rows are taken in chunks, so that neither the partial sums of tiles nor dlogits, d loss / d similarity, grow with N x M. A chunk of
dlogits has the dtype of the inputs; dQ = dlogits @ K and dK += dlogits^T @ Q are products of the library with fp32 results. Costs in
units of one product U = 2 * N * M * D: 1 for the loss and 2 for both gradients, which are computed from the roots of exponentials that
the first product stored. In both directions, and under one cotangent per row, they wait until all rows are done: similarities beyond
`tiles.KEPT_BYTES` are then computed again, at most 1 more. Gradients that nobody asked for are left out.

Shape legend: N queries, M keys, D hidden width, C rows of a chunk, K rows whose roots are kept, X rows of either side.
"""

import torch

from ..common.dispatch import on_device
from .gradients import Gradients, allocate_gradients, multiply, place, rows_of
from .launches import (
    Side,
    launch_dlogits,
    launch_finish,
    launch_merge,
    launch_norms,
    launch_project,
    launch_statistics,
    launch_stored_dlogits,
)
from .plan import LaunchPlan, Operands, prepare
from .problem import ForwardResult, Inputs, Options, Statistics, Wanted, saved_gradient_dtype
from .tiles import keeps_all, stored_dtype


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
