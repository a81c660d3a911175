"""Buffers of the gradients of InfoNCE on a GPU, and the library's matrix product into them.

Shape legend: N queries, M keys, D hidden width, C rows of a chunk.
"""

from dataclasses import dataclass

import torch

from .plan import LaunchPlan, Operands, stored_dtype
from .problem import Statistics, Wanted

# fp16 ends at 65504 and thins out below 2^-14, so dlogits are scaled up to this largest value. bf16 needs no scale.
FP16_DLOGITS = 2.0**14


@dataclass
class Gradients:
    """The gradients that one chunk of dlogits after another adds to, and the buffers this takes."""

    dlogits_CM: (
        torch.Tensor | None
    )  # rows of `plan.stride`; None after the last chunk: its memory is then free for the keys' gradient
    stored_CM: torch.Tensor | None  # where roots are stored: the same memory, except for fp16
    dlogits_scale: torch.Tensor  # what dlogits are multiplied by
    dtype: torch.dtype
    queries_ND: torch.Tensor | None
    query_product_CD: torch.Tensor | None
    key_product_MD: torch.Tensor | None
    keys_MD: torch.Tensor | None = None


def allocate_gradients(
    plan: LaunchPlan,
    operands: Operands,
    statistics: Statistics,
    wanted: Wanted,
    dtype: torch.dtype,
    cotangent_N: torch.Tensor | None,
) -> Gradients:
    """Buffers for the wanted gradients, which come out in `dtype`."""
    keys_MD, sums_N = operands.keys_MD, statistics.inverse_N
    dlogits_CM = keys_MD.new_empty(plan.chunk, plan.stride)
    return Gradients(
        dlogits_CM=dlogits_CM,
        stored_CM=dlogits_CM if plan.dtype == stored_dtype(plan.dtype) else sums_N.new_empty(dlogits_CM.shape),
        dlogits_scale=_dlogits_scale(plan, operands, statistics, cotangent_N),
        dtype=dtype,
        queries_ND=keys_MD.new_empty((plan.n, plan.d), dtype=dtype) if wanted.queries else None,
        query_product_CD=sums_N.new_empty(plan.chunk, plan.d) if wanted.queries else None,
        key_product_MD=sums_N.new_empty(plan.m, plan.d) if wanted.keys else None,
    )


def _dlogits_scale(
    plan: LaunchPlan, operands: Operands, statistics: Statistics, cotangent_N: torch.Tensor | None
) -> torch.Tensor:
    """1, or for fp16 what brings the largest possible entry of dlogits to `FP16_DLOGITS`."""
    if plan.dtype != torch.float16:
        return torch.ones_like(operands.temperature)
    largest = statistics.inverse_N.amax() * statistics.inverse_M.amax()
    if cotangent_N is not None:
        largest = largest * cotangent_N.abs().amax()
    return torch.where(largest == 0, 1, FP16_DLOGITS / largest)


def multiply(a: torch.Tensor, b: torch.Tensor, out: torch.Tensor, accumulate: bool) -> None:
    """out = a @ b, or out += a @ b, in fp32 from start to end."""
    if a.dtype == torch.float32 or not a.is_cuda:  # on a CPU (Triton's interpreter) PyTorch has no mixed product
        torch.addmm(out, a.float(), b.float(), beta=float(accumulate), out=out)
    elif accumulate:
        torch.addmm(out, a, b, out_dtype=torch.float32, out=out)
    else:
        torch.mm(a, b, out_dtype=torch.float32, out=out)
