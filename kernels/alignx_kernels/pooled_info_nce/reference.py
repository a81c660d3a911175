"""Span means, then InfoNCE, both as their formulas have them: the truth in tests.

Shape legend: T packed tokens, D hidden width, N source spans, M target spans (M >= N).
"""

import torch

from ..info_nce import info_nce_loss
from ..span_mean import span_mean


def pooled_info_nce_loss(
    hidden_TD: torch.Tensor,
    source_spans_N2: torch.Tensor,
    target_spans_M2: torch.Tensor,
    *,
    temperature: float | torch.Tensor = 0.1,
    symmetric: bool = False,
    query_ids: torch.Tensor | None = None,
    key_ids: torch.Tensor | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """InfoNCE of the means over source spans (queries) and target spans (keys)."""
    n = source_spans_N2.shape[0]
    means_SD = span_mean(hidden_TD, torch.cat([source_spans_N2, target_spans_M2]), impl="reference")
    return info_nce_loss(
        means_SD[:n],
        means_SD[n:],
        temperature=temperature,
        symmetric=symmetric,
        query_ids=query_ids,
        key_ids=key_ids,
        reduction=reduction,
        impl="reference",
    )
