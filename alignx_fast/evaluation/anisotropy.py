"""Anisotropy of one layer: how far the sentence vectors of a language point the same way, whatever the sentences say.

Source: Ethayarajh 2019 (arXiv 1909.00512).

Shape legend: L languages, N meanings, n sentences of a language, D hidden width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from alignx_fast.evaluation.layers import mean
from alignx_fast.evaluation.sample import evenly

COMPONENT_SENTENCES = 1000
"""Sentences of a language whose first principal component is taken."""


class Anisotropy(NamedTuple):
    """Means over the languages with at least two sentences; None where there is none."""

    same_language: float | None
    """Cosine of two different sentences of one language, mean over all pairs of them."""
    first_component: float | None
    """Share of the variance along the first principal component, 0 to 1."""


def anisotropy(vectors_LND: torch.Tensor, has_LN: torch.Tensor, device: torch.device | str = "cpu") -> Anisotropy:
    """Both measures as means over the languages."""
    own = [vectors_LND[language, has].to(device) for language, has in enumerate(has_LN) if has.sum() >= 2]
    return Anisotropy(mean([mean_cosine(x_ND) for x_ND in own]), mean([first_component(x_ND) for x_ND in own]))


def mean_cosine(vectors_ND: torch.Tensor) -> float:
    """Mean cosine over all pairs of different rows."""
    unit_ND, n = F.normalize(vectors_ND, dim=-1).double(), len(vectors_ND)
    # The sum of all cosines is the squared length of the sum; those of a vector with itself are taken off.
    return (unit_ND.sum(0).square().sum() - unit_ND.square().sum()).item() / (n * (n - 1))


def first_component(vectors_ND: torch.Tensor) -> float:
    """Share of the variance along the first principal component, of at most `COMPONENT_SENTENCES` rows; 0 for constant vectors."""
    sample_ND = vectors_ND[evenly(range(len(vectors_ND)), COMPONENT_SENTENCES)].double()
    centred_ND = sample_ND - sample_ND.mean(0)
    variances = torch.linalg.eigvalsh(centred_ND @ centred_ND.T)
    total = variances.sum().item()
    return variances[-1].item() / total if total > 0 else 0.0
