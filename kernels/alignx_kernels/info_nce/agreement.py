"""What the processes of a group tell each other before they gather rows, so that a call which differs is refused in all of them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import torch
import torch.distributed as dist

from ..common import checks

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# torch 2.13 renamed it and warns of the old name.
all_gather = getattr(dist, "all_gather_single", None) or dist.all_gather_into_tensor


class Shared(NamedTuple):
    """What a process tells the others before anything else; numbers, because they travel as one fp64 tensor."""

    is_refused: float = 1
    num_queries: float = 0
    num_keys: float = 0
    wants_queries: float = 0
    wants_keys: float = 0
    wants_any: float = 0
    gradients: float = 0
    width: float = 0
    dtype: float = 0
    symmetric: float = 0
    reduction: float = 0
    ids: float = 0
    temperature: float = 0  # 0 for a tensor, whose value is not read


# The fields that all processes must agree on, in words.
AGREED: dict[str, Callable[[float], str]] = {
    "gradients": lambda value: "gradients enabled" if value else "gradients disabled",
    "width": lambda value: f"vectors of width {value:.0f}",
    "dtype": lambda value: f"vectors of {checks.FLOATING[int(value)]}",
    "symmetric": lambda value: f"symmetric={bool(value)}",
    "reduction": lambda value: f"reduction={checks.REDUCTIONS[int(value)]!r}",
    "ids": lambda value: "ids" if value else "no ids",
    "temperature": lambda value: f"temperature={value}" if value else "a temperature that is a tensor",
}


def describe(
    queries_ND: torch.Tensor,
    keys_MD: torch.Tensor,
    temperature: float | torch.Tensor,
    symmetric: bool,
    query_ids: torch.Tensor | None,
    reduction: str,
) -> Shared:
    """What to tell of a call that this process does not refuse."""
    learns = isinstance(temperature, torch.Tensor) and temperature.requires_grad
    wanted = [torch.is_grad_enabled() and want for want in (queries_ND.requires_grad, keys_MD.requires_grad, learns)]
    return Shared(
        is_refused=False,
        num_queries=queries_ND.shape[0],
        num_keys=keys_MD.shape[0],
        wants_queries=wanted[0],
        wants_keys=wanted[1],
        wants_any=any(wanted),
        gradients=torch.is_grad_enabled(),
        width=keys_MD.shape[1],
        dtype=checks.FLOATING.index(keys_MD.dtype),
        symmetric=symmetric,
        reduction=checks.REDUCTIONS.index(reduction),
        ids=query_ids is not None,
        temperature=0 if isinstance(temperature, torch.Tensor) else temperature,
    )


def exchange(own: Shared, group: "ProcessGroup") -> list[Shared]:
    """What each process shares. The host waits for the GPU where the group has no CPU backend ("cpu:gloo,cuda:nccl" has one)."""
    device = "cpu" if "cpu:" in dist.get_backend_config(group) else "cuda"
    own_F = torch.tensor(own, dtype=torch.float64, device=device)
    all_F = own_F.new_empty(group.size() * len(own))
    all_gather(all_F, own_F, group=group)
    return [Shared(*fields) for fields in all_F.view(group.size(), -1).tolist()]


def check_agreement(shared: list[Shared]) -> None:
    """Refuse, in every process alike, what one of them refused or what they do not agree on."""
    refused = [rank for rank, one in enumerate(shared) if one.is_refused]
    if refused:
        raise ValueError(f"Process {refused[0]} of the group refused its inputs; its own message says why.")
    for field, in_words in AGREED.items():
        values = [getattr(one, field) for one in shared]
        for rank, value in enumerate(values):
            if value != values[0]:
                difference = f"process {rank} has {in_words(value)}, process 0 has {in_words(values[0])}"
                raise ValueError(f"The processes of the group must call alike: {difference}.")
    if not any(one.num_queries for one in shared):
        raise ValueError("No process of the group has a query; at least one query is needed.")
