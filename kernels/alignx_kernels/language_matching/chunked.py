"""The pairs of language matching in eager PyTorch, a few rows a at a time against all b: the implementation without a GPU.

Memory beyond inputs and outputs is a few buffers of [rows, M, I], held near a fixed size each.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F

# 1 MB in fp32 stays in a core's share of cache; a GPU (for fp64, and for widths its kernels do not take) needs more to be busy.
BUFFER_ELEMENTS = 1 << 18
GPU_BUFFER_ELEMENTS = 1 << 24


def forward(projected_M4I: torch.Tensor, weight_I: torch.Tensor, languages_M: torch.Tensor) -> torch.Tensor:
    """Sum over b of loss_ab for every a: [M]."""
    loss_M = projected_M4I.new_empty(len(projected_M4I))
    for rows, x_RMI, v_RMI in _pair_rows(projected_M4I):
        z_RM = (F.silu(x_RMI, inplace=True) * v_RMI) @ weight_I
        same_RM = languages_M[rows, None] == languages_M[None, :]
        loss_M[rows] = F.softplus(torch.where(same_RM, -z_RM, z_RM), threshold=40).sum(1)
    return loss_M


def backward(
    grad_M: torch.Tensor, projected_M4I: torch.Tensor, weight_I: torch.Tensor, languages_M: torch.Tensor
) -> torch.Tensor:
    """[d gate | A] of `api.backward_operator` for both halves: [M, 4I], ordered as the projections."""
    sums_M4I = torch.zeros_like(projected_M4I)
    gate_a, gate_b, up_a, up_b = sums_M4I.chunk(4, dim=1)
    for rows, x_RMI, v_RMI in _pair_rows(projected_M4I):
        sigmoid_RMI = x_RMI.sigmoid()
        silu_RMI = x_RMI.mul_(sigmoid_RMI)
        z_RM = (silu_RMI * v_RMI) @ weight_I
        same_RM = languages_M[rows, None] == languages_M[None, :]
        dz_RM = (z_RM.sigmoid() - same_RM.to(z_RM.dtype)) * grad_M[rows, None]
        # silu' = s + silu (1 - s); the rows a reduce over b, the columns b add up over the rows.
        slope_RMI = torch.addcmul(sigmoid_RMI + silu_RMI, sigmoid_RMI, silu_RMI, value=-1).mul_(v_RMI).mul_(dz_RM[..., None])
        gate_a[rows] = slope_RMI.sum(1)
        gate_b += slope_RMI.sum(0)
        silu_RMI.mul_(dz_RM[..., None])
        up_a[rows] = silu_RMI.sum(1)
        up_b += silu_RMI.sum(0)
    gate_a *= weight_I
    gate_b *= weight_I
    return sums_M4I


def _pair_rows(projected_M4I: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor, torch.Tensor]]:
    """Row blocks with their gate sums x and up sums v, [R, M, I], which the caller may overwrite."""
    gate_a, gate_b, up_a, up_b = projected_M4I.chunk(4, dim=1)
    elements = GPU_BUFFER_ELEMENTS if projected_M4I.is_cuda else BUFFER_ELEMENTS
    num_rows = max(1, elements // gate_a.numel())
    for first in range(0, len(projected_M4I), num_rows):
        rows = slice(first, first + num_rows)
        yield rows, gate_a[rows, None] + gate_b, up_a[rows, None] + up_b
