"""Span means as the formula has them, in eager PyTorch: the truth in tests, fed with fp64.

Shape legend: T packed tokens, S spans, D hidden width.
"""

import torch


def span_mean(hidden_TD: torch.Tensor, spans_S2: torch.Tensor) -> torch.Tensor:
    """Mean of `hidden_TD[start:end]` for every span; [S, D] in the dtype of `hidden_TD`, summed in at least fp32."""
    wide_TD = hidden_TD if hidden_TD.dtype == torch.float64 else hidden_TD.float()
    means = [wide_TD[start:end].mean(0) for start, end in spans_S2.tolist()]
    return torch.stack(means).to(hidden_TD.dtype) if means else hidden_TD.new_zeros(0, hidden_TD.shape[1])
