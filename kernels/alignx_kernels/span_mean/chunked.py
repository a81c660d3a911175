"""Span means in eager PyTorch, span by span: the implementation without a GPU, and for fp64.

Shape legend: T packed tokens, S spans, D hidden width.
"""

import torch


def forward(hidden_TD: torch.Tensor, spans_S2: torch.Tensor) -> torch.Tensor:
    """[T, D] and spans in CPU memory -> [S, D]."""
    wide = torch.promote_types(hidden_TD.dtype, torch.float32)
    means_SD = hidden_TD.new_empty(len(spans_S2), hidden_TD.shape[1])
    for row, (start, end) in enumerate(spans_S2.tolist()):
        means_SD[row] = hidden_TD[start:end].sum(0, dtype=wide) / (end - start)
    return means_SD


def backward(grad_SD: torch.Tensor, spans_S2: torch.Tensor, num_tokens: int) -> torch.Tensor:
    """[S, D] and spans in CPU memory -> [T, D]."""
    grad_TD = grad_SD.new_zeros(num_tokens, grad_SD.shape[1])
    for row, (start, end) in enumerate(spans_S2.tolist()):
        grad_TD[start:end] = grad_SD[row] / (end - start)
    return grad_TD
