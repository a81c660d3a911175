"""How near translations are to each other at one layer, beside sentences that have nothing to do with each other.

Shape legend: L languages, N meanings, n of them in both languages of a pair, D hidden width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F

from alignx_fast.evaluation.retrieval import language_pairs
from alignx_fast.evaluation.sample import evenly

CKA_SENTENCES = 1000
"""Sentences of a pair that CKA compares; it takes a matrix of all against all."""


class Similarity(NamedTuple):
    """Means over all pairs of languages at one layer; None where there is no pair."""

    translations: float | None
    """Cosine of translations."""
    unrelated: float | None
    """Cosine of mismatched sentences."""
    cka: float | None
    """Linear CKA, 0 to 1."""


def similarity(vectors_LND: torch.Tensor, has_LN: torch.Tensor, device: torch.device | str = "cpu") -> Similarity:
    """How near translations and mismatched sentences are to each other, as means over all pairs of languages."""
    related, unrelated, alignment = [], [], []
    for _, _, a_ND, b_ND in language_pairs(vectors_LND, has_LN, device):
        unit_a, unit_b = F.normalize(a_ND, dim=-1).double(), F.normalize(b_ND, dim=-1).double()
        n, diagonal = len(unit_a), (unit_a * unit_b).sum().item()
        related.append(diagonal / n)
        # The sum of all cosines is the product of the sums, so that no matrix of them is needed.
        unrelated.append(((unit_a.sum(0) @ unit_b.sum(0)).item() - diagonal) / (n * (n - 1)))
        sample = evenly(range(n), CKA_SENTENCES)
        alignment.append(linear_cka(a_ND[sample], b_ND[sample]))
    return Similarity(mean(related), mean(unrelated), mean(alignment))


def linear_cka(a_ND: torch.Tensor, b_ND: torch.Tensor) -> float:
    """Linear centred kernel alignment of two sets of vectors in the same order (Kornblith et al. 2019, eq. 3); 0 if constant."""
    a_NN, b_NN = (centred @ centred.T for centred in (x - x.mean(0) for x in (a_ND.double(), b_ND.double())))
    scale = (a_NN.norm() * b_NN.norm()).item()
    return (a_NN * b_NN).sum().item() / scale if scale > 0 else 0.0


def mean(values: list[float]) -> float | None:
    """Arithmetic mean; None of nothing."""
    return sum(values) / len(values) if values else None
