"""Mean of hidden states over spans of packed tokens."""

import torch

from . import reference


def span_mean(hidden_TD: torch.Tensor, spans_S2: torch.Tensor, *, impl: str | None = None) -> torch.Tensor:
    return reference.span_mean(hidden_TD, spans_S2)
