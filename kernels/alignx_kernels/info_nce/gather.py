"""InfoNCE over the rows of all processes of a group, each of which computes the losses of its own rows.

A process compares its own queries with the keys of all, and in both directions its own positives with the queries of all: the operator for
one process, called once or twice, never with more than its own N rows against those of all. What is gathered is one copy of the vectors;
gradients at it go back by a reduce-scatter, in fp32 (fp64 for fp64).

A process's gradients are those of the sum, over the processes, of what each of them calls `backward` on.

Shape legend: R processes; N queries and M keys of this process, W of all; X rows of either side; L rows of the longest process; D width.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.distributed as dist
from torch.autograd.function import once_differentiable

from ..common import checks
from ..common.autograd import Context
from ..common.dispatch import choose_implementation
from . import api
from .agreement import Shared, all_gather, check_agreement, describe, exchange
from .problem import accumulator_dtype

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

DEFAULT_GROUP = "process_group"
# As `agreement.all_gather`.
_reduce_scatter = getattr(dist, "reduce_scatter_single", None) or dist.reduce_scatter_tensor


@torch.compiler.disable(  # type: ignore[no-untyped-call, untyped-decorator]  # PyTorch leaves it untyped
    reason="info_nce_loss(gather=...) reads how many rows the other processes have; call it outside of fullgraph"
)
def gathered_info_nce_loss(
    queries_ND: torch.Tensor,
    keys_MD: torch.Tensor,
    *,
    gather: "str | ProcessGroup",
    temperature: float | torch.Tensor,
    symmetric: bool,
    query_ids: torch.Tensor | None,
    key_ids: torch.Tensor | None,
    reduction: str,
    impl: str | None,
) -> torch.Tensor:
    """`info_nce_loss` with `gather`; the same result in every process, or the own rows under reduction "none"."""
    group = _as_group(gather)
    queries_ND, keys_MD, impl, shared = _agree(
        group, queries_ND, keys_MD, temperature, symmetric, query_ids, key_ids, reduction, impl
    )
    query_counts, key_counts = [int(one.num_queries) for one in shared], [int(one.num_keys) for one in shared]
    sides = [_Side(keys_MD, key_counts, any(one.wants_keys for one in shared))]
    if symmetric:
        sides.append(_Side(queries_ND, query_counts, any(one.wants_queries for one in shared)))
    all_keys_WD, *all_queries = _gather_sides(sides, group)
    query_ids, key_ids = (None if ids is None else ids.long() for ids in (query_ids, key_ids))
    all_query_ids = None if query_ids is None or not symmetric else _all_rows(query_ids, query_counts, group)
    all_key_ids = None if key_ids is None else _all_rows(key_ids, key_counts, group)

    def against(left_XD: torch.Tensor, all_WD: torch.Tensor, ids: list[torch.Tensor | None]) -> torch.Tensor:
        if not len(left_XD):
            empty_0 = _nothing(left_XD, all_WD, temperature)
            return empty_0 if reduction == "none" else empty_0.sum()
        return api.info_nce_loss(
            left_XD,
            all_WD,
            temperature=temperature,
            query_ids=ids[0],
            key_ids=ids[1],
            reduction="none" if reduction == "none" else "sum",
            impl=impl,
        )

    loss = against(queries_ND, all_keys_WD, [query_ids, all_key_ids])
    if symmetric:
        n = len(queries_ND)
        loss = (loss + against(keys_MD[:n], all_queries[0], [None if key_ids is None else key_ids[:n], all_query_ids])) / 2
    if reduction == "none":
        return loss
    if any(one.wants_any for one in shared) and not loss.requires_grad:
        loss = loss.detach().requires_grad_()  # the backward of the sum is a collective, in which every process takes part
    total: torch.Tensor = _SumOfProcesses.apply(loss, group)  # type: ignore[no-untyped-call]  # PyTorch leaves `apply` untyped
    return total / sum(query_counts) if reduction == "mean" else total


def _agree(
    group: "ProcessGroup",
    queries_ND: torch.Tensor,
    keys_MD: torch.Tensor,
    temperature: float | torch.Tensor,
    symmetric: bool,
    query_ids: torch.Tensor | None,
    key_ids: torch.Tensor | None,
    reduction: str,
    impl: str | None,
) -> tuple[torch.Tensor, torch.Tensor, str | None, list[Shared]]:
    """Vectors in the dtype that is gathered, the implementation, and the call of every process; raises in all where one is wrong."""
    refusal, own = None, Shared()
    try:
        api.check_inputs(queries_ND, keys_MD, temperature, query_ids, key_ids, reduction, fewest=0)
        impl = choose_implementation(impl, queries_ND, keys_MD)
        _check_backend(group, keys_MD.device)
        if isinstance(temperature, torch.Tensor):
            checks.check_temperature_value(temperature)
        if impl == "triton":
            queries_ND, keys_MD = api.in_autocast_dtype(queries_ND), api.in_autocast_dtype(keys_MD)
        own = describe(queries_ND, keys_MD, temperature, symmetric, query_ids, reduction)
    except Exception as error:  # whatever it is: the others wait to hear of it
        refusal = error
    shared = exchange(own, group)
    if refusal is not None:
        raise refusal
    check_agreement(shared)
    return queries_ND, keys_MD, impl, shared


def _nothing(left_0D: torch.Tensor, all_WD: torch.Tensor, temperature: float | torch.Tensor) -> torch.Tensor:
    """No losses, which depend on all inputs: a process without rows takes part in the backward, and DistributedDataParallel misses nothing."""
    dtype = accumulator_dtype(all_WD.dtype)
    empty_0 = left_0D.sum(1, dtype=dtype) + all_WD[:0].sum(1, dtype=dtype)
    return empty_0 + temperature.reshape(1)[:0].to(dtype) if isinstance(temperature, torch.Tensor) else empty_0


def _as_group(gather: "str | ProcessGroup") -> "ProcessGroup":
    """The process group that the option names, if this process can use it."""
    is_default = isinstance(gather, str) and gather == DEFAULT_GROUP
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError(f"gather is {gather!r}; it needs torch.distributed.init_process_group before the call.")
    if not is_default and not isinstance(gather, dist.ProcessGroup):
        raise ValueError(f"gather is {gather!r}; it must be None, {DEFAULT_GROUP!r}, or a process group that this process is in.")
    group = dist.group.WORLD if is_default else gather
    assert isinstance(group, dist.ProcessGroup)
    if torch.cuda.is_available() and torch.cuda.is_current_stream_capturing():
        raise ValueError(
            f"gather is {gather!r} inside a CUDA graph; the host reads the row counts, so leave the loss out of the graph."
        )
    return group


def _check_backend(group: "ProcessGroup", device: torch.device) -> None:
    backends = dist.get_backend_config(group)
    if f"{device.type}:" not in backends:
        raise ValueError(f"The vectors lie on {device}, which the process group cannot reach: its backends are {backends}.")


class _Side(NamedTuple):
    """Vectors of this process, the rows of every process, and whether any process wants gradients at its vectors."""

    vectors_XD: torch.Tensor
    counts: list[int]
    is_wanted: bool


def _gather_sides(sides: Sequence[_Side], group: "ProcessGroup") -> tuple[torch.Tensor, ...]:
    """The vectors of all processes, this one's first."""
    given = [
        # Where others want gradients, this process takes part in their sum even if its own vectors need none.
        vectors_XD.detach().requires_grad_() if is_wanted and not vectors_XD.requires_grad else vectors_XD
        for vectors_XD, _, is_wanted in sides
    ]
    counts, wanted = [side.counts for side in sides], [side.is_wanted for side in sides]
    gathered: tuple[torch.Tensor, ...] = _Gather.apply(group, counts, wanted, *given)  # type: ignore[no-untyped-call]
    return gathered


class _GatherContext(Context):
    group: "ProcessGroup"
    counts: list[list[int]]
    wanted: list[bool]
    dtype: torch.dtype


class _Gather(torch.autograd.Function):
    """All-gather of both sides in one node, so that the collectives of its backward have the same order in every process."""

    @staticmethod
    def forward(
        ctx: _GatherContext, group: "ProcessGroup", counts: list[list[int]], wanted: list[bool], *sides: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        ctx.group, ctx.counts, ctx.wanted, ctx.dtype = group, counts, wanted, sides[0].dtype
        gathered = tuple(_all_rows(side, of_side, group) for side, of_side in zip(sides, counts, strict=True))
        ctx.mark_non_differentiable(*(rows for rows, want in zip(gathered, wanted, strict=True) if not want))
        return gathered

    @staticmethod
    @once_differentiable
    def backward(ctx: _GatherContext, *gradients_WD: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        own = [
            _own_rows_of_sum(gradient_WD, of_side, ctx.group).to(ctx.dtype) if want else None
            for gradient_WD, of_side, want in zip(gradients_WD, ctx.counts, ctx.wanted, strict=True)
        ]
        return None, None, None, *own


def _own_first(group: "ProcessGroup") -> list[int]:
    """The processes in the order of their rows: key i must be the positive of this process's query i."""
    rank = group.rank()
    return [rank, *(other for other in range(group.size()) if other != rank)]


def _all_rows(rows_X: torch.Tensor, counts: list[int], group: "ProcessGroup") -> torch.Tensor:
    """Rows of all processes, this one's first. They travel padded to those of the longest process."""
    padded_L = rows_X.contiguous()
    if len(rows_X) < max(counts):
        padded_L = torch.cat([rows_X, rows_X.new_zeros(max(counts) - len(rows_X), *rows_X.shape[1:])])
    gathered_RL = rows_X.new_empty(len(counts) * max(counts), *rows_X.shape[1:])
    all_gather(gathered_RL, padded_L, group=group)
    of_process = gathered_RL.view(len(counts), -1, *rows_X.shape[1:])
    return torch.cat([of_process[process, : counts[process]] for process in _own_first(group)])


def _own_rows_of_sum(gradient_WD: torch.Tensor, counts: list[int], group: "ProcessGroup") -> torch.Tensor:
    """This process's rows of the sum over all processes, whose rows each lists with its own first."""
    longest, width = max(counts), gradient_WD.shape[1]
    padded_RLD = gradient_WD.new_zeros(len(counts), longest, width, dtype=accumulator_dtype(gradient_WD.dtype))
    start = 0
    for process in _own_first(group):
        stop = start + counts[process]
        padded_RLD[process, : counts[process]] = gradient_WD[start:stop]
        start = stop
    own_LD = padded_RLD.new_empty(longest, width)
    _reduce_scatter(own_LD, padded_RLD.view(-1, width), group=group)
    return own_LD[: counts[group.rank()]]


class _SumOfProcesses(torch.autograd.Function):
    """The sum of one value per process, in every process."""

    @staticmethod
    def forward(ctx: _GatherContext, value: torch.Tensor, group: "ProcessGroup") -> torch.Tensor:
        ctx.group = group
        total = value.clone()
        dist.all_reduce(total, group=group)
        return total

    @staticmethod
    def backward(ctx: _GatherContext, cotangent: torch.Tensor) -> tuple[torch.Tensor, None]:
        total = cotangent.clone()
        dist.all_reduce(total, group=ctx.group)
        return total, None
