"""Cosine InfoNCE over large in-batch negatives: the public door. The way goes on in `info_nce_operators`."""

from typing import Any

import torch

from . import checks, dispatch, reference
from .info_nce_operators import info_nce
from .info_nce_problem import Wanted, accumulator
from .operators import watched


def info_nce_loss(
    queries_ND: torch.Tensor,
    keys_MD: torch.Tensor,
    *,
    temperature: float | torch.Tensor = 0.1,
    symmetric: bool = False,
    query_ids: torch.Tensor | None = None,
    key_ids: torch.Tensor | None = None,
    reduction: str = "mean",
    impl: str | None = None,
) -> torch.Tensor:
    """Cross entropy of each query against all keys under cosine / temperature; key i is the positive of query i.

    queries_ND [N, D] and keys_MD [M, D], M >= N, share a dtype and a device; keys N and later are negatives only. Sums run in
    fp32 (fp64 for fp64), and so is the loss: a scalar for reduction "mean" or "sum", [N] for "none". Vectors need not be
    normalised; a zero vector has cosine 0 with everything and gradient 0. No N x M matrix is stored, nothing is spent on the
    gradient of an input that does not require one, and results repeat bit for bit.

    temperature: a positive number, or a tensor of one element, which receives its gradient. A tensor on a GPU is never read by the
        host: there one that is not positive or not finite gives a loss of NaN.
    symmetric: mean of the loss above and that of keys 0 .. N-1 against all queries.
    query_ids [N], key_ids [M]: integers. Where query_ids[i] == key_ids[j], i != j, key j is no negative of query i, nor i of j.
    impl: "reference", "chunked", "triton", or None for the best available: Triton on CUDA, chunked elsewhere and in fp64.

    Raises: ValueError for wrong shapes, dtypes, devices or options.
    Source: arXiv 2509.24338, instruction contrastive learning; options beyond it are ours.
    """
    checks.check_matrix("queries_ND", queries_ND)
    checks.check_matrix("keys_MD", keys_MD)
    check_options(queries_ND.shape[0], keys_MD.shape[0], temperature, query_ids, key_ids, reduction)
    if queries_ND.shape[1] != keys_MD.shape[1]:
        found = f"queries_ND is {tuple(queries_ND.shape)} and keys_MD {tuple(keys_MD.shape)}"
        raise ValueError(f"{found}; their second sizes must be equal.")
    if queries_ND.dtype != keys_MD.dtype:
        raise ValueError(f"queries_ND is {queries_ND.dtype} and keys_MD {keys_MD.dtype}; cast one to the dtype of the other.")
    on_device = temperature if isinstance(temperature, torch.Tensor) else None
    checks.check_same_device(queries_ND=queries_ND, keys_MD=keys_MD, temperature=on_device, query_ids=query_ids, key_ids=key_ids)
    chosen = dispatch.choose(impl, queries_ND, keys_MD)
    if chosen == "reference":
        if isinstance(temperature, torch.Tensor) and not watched((temperature,)):
            checks.check_temperature_value(temperature)
        options: dict[str, Any] = {"temperature": temperature, "symmetric": symmetric, "query_ids": query_ids, "key_ids": key_ids}
        return reference.info_nce_loss(queries_ND, keys_MD, **options, reduction=reduction).to(accumulator(keys_MD.dtype))
    temperature = as_scalar(temperature, keys_MD)
    wanted = gradients_wanted(queries_ND, keys_MD, temperature)
    return info_nce(queries_ND, keys_MD, temperature, query_ids, key_ids, symmetric, reduction, wanted, chosen)


def check_options(
    n: int,
    m: int,
    temperature: float | torch.Tensor,
    query_ids: torch.Tensor | None,
    key_ids: torch.Tensor | None,
    reduction: str,
) -> None:
    """Refuse what no implementation can take, for n queries and m keys."""
    if n == 0 or m < n:
        raise ValueError(f"There are {n} queries and {m} keys; at least one query, and a key for every query, is needed.")
    if (query_ids is None) != (key_ids is None):
        raise ValueError("One of query_ids and key_ids is None; give both or neither.")
    if query_ids is not None and key_ids is not None:
        checks.check_ids("query_ids", query_ids, n)
        checks.check_ids("key_ids", key_ids, m)
    checks.check_temperature(temperature)
    checks.check_reduction(reduction)


def as_scalar(temperature: float | torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The temperature as a tensor of 0 dimensions on the device of `like`; its gradient flows on to the tensor given.

    On a GPU a tensor that is not positive becomes NaN; in CPU memory the operator refuses it.
    """
    if isinstance(temperature, torch.Tensor):
        temperature = temperature.reshape(()).to(accumulator(like.dtype))
        return (
            torch.where((temperature > 0) & (temperature < torch.inf), temperature, torch.nan)
            if temperature.is_cuda
            else temperature
        )
    return torch.full((), temperature, dtype=accumulator(like.dtype), device=like.device)


def gradients_wanted(queries: torch.Tensor, keys: torch.Tensor, temperature: torch.Tensor) -> Wanted:
    """The inputs whose gradients a backward will be asked for."""
    enabled = torch.is_grad_enabled()
    return Wanted(*(enabled and tensor.requires_grad for tensor in (queries, keys, temperature)))
