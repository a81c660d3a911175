"""MEXA: how far the sentences of each language are aligned with those of a pivot language, over all layers.

A sentence counts at a layer if its cosine with its translation is larger than with any other sentence of the pivot, and larger than that of the
translation with any other sentence of its language. The score of a layer is the share of such sentences.

Source: Kargaran et al. 2024 (arXiv 2410.05873). There vectors are means weighted by position or the last token's; here they are plain means.

Shape legend: n sentences that a language shares with the pivot, Y layers.
"""

from collections.abc import Mapping, Sequence

import torch

from alignx_fast.evaluation.intervals import bootstrap_mean
from alignx_fast.evaluation.results import MexaScore
from alignx_fast.evaluation.retrieval import Search


def aligned(searches: Sequence[Search], pivot: int) -> dict[int, torch.Tensor]:
    """By language: [n] bool, which sentences are aligned with the pivot's at this layer, that is, found in both directions."""
    to_pivot = {found.source: found.found for found in searches if found.target == pivot}
    from_pivot = {found.target: found.found for found in searches if found.source == pivot}
    return {language: found & from_pivot[language] for language, found in to_pivot.items()}


def mexa(aligned_by_layer: Sequence[Mapping[int, torch.Tensor]], languages: Sequence[str]) -> dict[str, MexaScore]:
    """Mean and maximum over the layers for every language, from what `aligned` says of each layer."""
    return {
        languages[language]: mexa_score(torch.stack([layer[language] for layer in aligned_by_layer]).double())
        for language in (aligned_by_layer[0] if aligned_by_layer else ())
    }


def mexa_score(aligned_Yn: torch.Tensor) -> MexaScore:
    """The scores of one language, from which of its sentences are aligned at which layer."""
    by_layer = aligned_Yn.mean(1)
    best = int(by_layer.argmax())
    return MexaScore(
        mean=by_layer.mean().item(),
        mean_interval=bootstrap_mean([aligned_Yn.mean(0).tolist()]),
        max=by_layer[best].item(),
        max_interval=bootstrap_mean([aligned_Yn[best].tolist()]),
        best_layer=best,
        n=aligned_Yn.shape[1],
    )
