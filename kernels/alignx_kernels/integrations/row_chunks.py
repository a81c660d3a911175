"""A loss over all pairs as a sum over chunks of rows in plain PyTorch: for what the kernels have no option for yet.

Shape legend: N rows, M columns, C rows of a chunk.
"""

from collections.abc import Callable

import torch
from torch.autograd.function import once_differentiable

from ..common.autograd import Context
from ..common.private_apis import refuse_second_derivative

CHUNK_ELEMENTS_CPU, CHUNK_ELEMENTS_GPU = 2 << 20, 64 << 20
"""Similarities [C, M] of a chunk, of which a few copies are in memory: 8 MB in fp32 on a CPU, to stay in its cache; 256 MB elsewhere."""

LEAST_ROWS = 64
"""Fewer make thin products."""

# The loss of some rows, given which rows and the tensors.
ChunkLoss = Callable[..., torch.Tensor]


def sum_over_rows(chunk_loss: ChunkLoss, num_rows: int, num_columns: int, *tensors: torch.Tensor) -> torch.Tensor:
    """The sum of `chunk_loss(rows, *tensors)` over slices of the rows, with first derivatives at the tensors.

    Each chunk's gradient is taken before the next chunk is begun, so that one chunk of similarities is in memory at a time, and none is
    computed twice. Autocast is disabled inside: `chunk_loss` chooses the dtype of its products.
    """
    wanted = [torch.is_grad_enabled() and tensor.requires_grad for tensor in tensors]
    elements = CHUNK_ELEMENTS_CPU if tensors[0].device.type == "cpu" else CHUNK_ELEMENTS_GPU
    chunk = min(num_rows, max(LEAST_ROWS, elements // num_columns))
    loss: torch.Tensor = RowChunks.apply(chunk_loss, num_rows, chunk, wanted, *tensors)  # type: ignore[no-untyped-call]  # PyTorch leaves `apply` untyped
    return loss


class RowChunks(torch.autograd.Function):
    """Takes the gradients in the forward, chunk by chunk, and scales them in the backward."""

    @staticmethod
    def forward(
        ctx: Context, chunk_loss: ChunkLoss, num_rows: int, chunk: int, wanted: list[bool], *tensors: torch.Tensor
    ) -> torch.Tensor:
        leaves = [tensor.detach().requires_grad_(want) for tensor, want in zip(tensors, wanted, strict=True)]
        losses = []
        with torch.autocast(tensors[0].device.type, enabled=False), torch.set_grad_enabled(any(wanted)):
            for start in range(0, num_rows, chunk):
                loss = chunk_loss(slice(start, min(start + chunk, num_rows)), *leaves)
                if any(wanted):
                    loss.backward()  # type: ignore[no-untyped-call]  # PyTorch leaves it untyped
                losses.append(loss.detach())
        ctx.save_for_backward(*(leaf.grad for leaf in leaves))  # type: ignore[arg-type]  # None is taken too
        return torch.stack(losses).sum()

    @staticmethod
    def backward(ctx: Context, cotangent: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return refuse_second_derivative(RowChunks.backward_once(ctx, cotangent))

    @staticmethod
    @once_differentiable
    def backward_once(ctx: Context, cotangent: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradients = (None if gradient is None else gradient * cotangent for gradient in ctx.saved_tensors)
        return None, None, None, None, *gradients
