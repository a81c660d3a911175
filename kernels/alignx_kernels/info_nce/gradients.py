"""Buffers of the gradients of InfoNCE on a GPU, and the library's matrix product into them.

Shape legend: N queries, M keys, D hidden width, C rows of a chunk.
"""

from dataclasses import dataclass

import torch

from .plan import LaunchPlan, Operands
from .problem import Statistics, Wanted

# fp16 ends at 65504 and thins out below 2^-14, so dlogits are scaled up to this largest value, and made for queries of length 1, so that one
# short vector takes less of that range. bf16 needs neither.
FP16_DLOGITS = 2.0**14


@dataclass
class Gradients:
    """The gradients that one chunk of dlogits after another adds to, and the buffers this takes."""

    roots_KM: torch.Tensor | None  # the memory of `dlogits_CM` too, unless a backward may come again or the dtypes differ
    dlogits_CM: torch.Tensor | None  # both None after the last chunk: their memory is then free for the gradient of the keys
    dlogits_scale: torch.Tensor  # what dlogits are multiplied by
    dtype: torch.dtype
    queries_ND: torch.Tensor | None
    query_product_CD: torch.Tensor | None
    key_product_MD: torch.Tensor | None
    keys_MD: torch.Tensor | None = None

    def dlogits(self, start: int, stop: int) -> torch.Tensor:
        """Where the dlogits of these rows go."""
        assert self.dlogits_CM is not None
        return place(self.dlogits_CM, start, stop)


def place(buffer_KM: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """Rows of a buffer for a chunk: its own where the buffer is long enough, else the first, whose chunk is done by then."""
    return rows_of(buffer_KM, start, stop) if stop <= buffer_KM.shape[0] else buffer_KM[: stop - start]


def rows_of(tensor: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """No view where it is all rows: the six views of a small problem take the host as long as half a launch."""
    return tensor if stop - start == tensor.shape[0] else tensor[start:stop]


def allocate_gradients(
    plan: LaunchPlan,
    operands: Operands,
    statistics: Statistics,
    wanted: Wanted,
    dtype: torch.dtype,
    roots_KM: torch.Tensor | None,
    cotangent_N: torch.Tensor | None = None,
) -> Gradients:
    """Buffers for the wanted gradients, which come out in `dtype`. `roots_KM`: roots that nobody needs after their dlogits."""
    keys_MD, sums_N = operands.keys_MD, statistics.inverse_N
    in_place = roots_KM is not None and roots_KM.dtype == plan.dtype
    return Gradients(
        roots_KM=statistics.kept_NX if roots_KM is None else roots_KM,
        dlogits_CM=roots_KM if in_place else keys_MD.new_empty(plan.chunk, plan.stride),
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
    largest = statistics.inverse_M.amax()
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
