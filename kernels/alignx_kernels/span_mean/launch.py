"""Launches of the span pooling kernels: one pass over the tokens in each direction.

Shape legend: T packed tokens, S spans, D hidden width.
"""

import torch

from ..common.dispatch import on_device
from ..common.tiles import architecture, cdiv
from . import kernels
from .tiles import OWNER, POOLING


def forward(hidden_TD: torch.Tensor, spans_S2: torch.Tensor) -> torch.Tensor:
    """[T, D] of any strides, [S, 2] contiguous -> [S, D]."""
    num_tokens, width = hidden_TD.shape
    means_SD = hidden_TD.new_empty(len(spans_S2), width)
    if means_SD.numel():
        tile = POOLING[architecture(hidden_TD.device)]
        grid = (len(spans_S2), cdiv(width, tile.blocks["BLOCK_D"]))
        with on_device(hidden_TD):
            kernels.span_mean_forward_kernel[grid](
                p_hidden=hidden_TD,
                p_spans=spans_S2,
                p_means=means_SD,
                num_tokens=num_tokens,
                width=width,
                stride_t=hidden_TD.stride(0),
                stride_d=hidden_TD.stride(1),
                **tile.options,
            )
    return means_SD


def backward(grad_SD: torch.Tensor, spans_S2: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """[S, D] of any strides, [S, 2] contiguous -> [T, D]; every element is written once."""
    num_spans, width = grad_SD.shape
    if num_spans == 0:
        return grad_SD.new_zeros(num_tokens, width)
    grad_TD = grad_SD.new_empty(num_tokens, width)
    if width:
        with on_device(grad_SD):
            _spread(grad_SD, spans_S2, _owners(spans_S2, num_tokens, grad_SD.device), grad_TD)
    return grad_TD


def _owners(spans_S2: torch.Tensor, num_tokens: int, device: torch.device) -> torch.Tensor:
    """[T]: which spans hold a token, as `span_owner_kernel` encodes it."""
    owner_T = torch.zeros(num_tokens, dtype=torch.int64, device=device)
    kernels.span_owner_kernel[(len(spans_S2),)](
        p_spans=spans_S2,
        p_owner=owner_T,
        num_tokens=num_tokens,
        **OWNER[architecture(device)].options,
    )
    return owner_T


def _spread(grad_SD: torch.Tensor, spans_S2: torch.Tensor, owner_T: torch.Tensor, grad_TD: torch.Tensor) -> None:
    """Write the gradient of every token."""
    num_tokens, width = grad_TD.shape
    tile = POOLING[architecture(grad_SD.device)]
    grid = (cdiv(num_tokens, tile.blocks["BLOCK_T"]), cdiv(width, tile.blocks["BLOCK_D"]))
    kernels.span_mean_backward_kernel[grid](
        p_grad=grad_SD,
        p_spans=spans_S2,
        p_owner=owner_T,
        p_out=grad_TD,
        num_tokens=num_tokens,
        width=width,
        stride_s=grad_SD.stride(0),
        stride_d=grad_SD.stride(1),
        **tile.options,
    )
