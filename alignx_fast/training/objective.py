"""The terms of L = L_ntp + w_ctr L_ctr + w_lam L_lam on pooled sentence vectors (AlignX, arXiv 2509.24338, section 3)."""

from dataclasses import dataclass

import torch
from alignx_kernels import info_nce_loss, language_matching_loss, span_mean
from torch import nn

from alignx_fast.config import AlignSettings
from alignx_fast.data.packing import PackedBatch
from alignx_fast.models.capture import captured
from alignx_fast.models.forward import packed_forward
from alignx_fast.models.heads import AlignmentHeads


@dataclass
class Vectors:
    """Pooled sentence vectors of N pairs, in the dtype of the hidden states."""

    sources_ND: torch.Tensor
    """Mean state at the align layer over the source span."""
    targets_ND: torch.Tensor
    """Mean state at the align layer over the target span."""
    matching_MD: torch.Tensor | None
    """[2N, D], sources first: mean last state over the positions that predict the span's tokens; None where not taken."""


def forward_pooled(model: nn.Module, batch: PackedBatch, layer: int, *, matching: bool) -> tuple[torch.Tensor, Vectors]:
    """Run the body on a packed batch; returns the last hidden state [T, D] and the pooled vectors."""
    with captured(model, [layer]) as states:
        hidden_TD = packed_forward(model, batch)
    # Pooled out here, not in the hook: the hook may run inside a checkpointed layer, which would pool again when it is recomputed.
    # The state itself is kept by the next layer anyway.
    sources_ND, targets_ND = pool_pairs(states.pop(layer), batch)
    return hidden_TD, Vectors(sources_ND, targets_ND, pool_matching(hidden_TD, batch) if matching else None)


def pool_pairs(hidden_TD: torch.Tensor, batch: PackedBatch) -> tuple[torch.Tensor, torch.Tensor]:
    """c and d of the contrastive loss: span means of sources and targets, [N, D] each."""
    sources_ND, targets_ND = span_mean(hidden_TD, torch.cat([batch.source_spans, batch.target_spans])).chunk(2)
    return sources_ND, targets_ND


def pool_matching(hidden_TD: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
    """e of the matching loss, [2N, D]: positions t - 1 for t in the span, the states that predict its tokens.

    Every span has a token before it: the prompt opens with BOS or with the template's own words.
    """
    return span_mean(hidden_TD, torch.cat([batch.source_spans, batch.target_spans]) - 1)


def contrastive_loss(
    vectors: Vectors,
    heads: AlignmentHeads,
    settings: AlignSettings,
    meanings_N: torch.Tensor,
    queue: tuple[torch.Tensor, torch.Tensor] | None,
) -> torch.Tensor:
    """L_ctr over the pairs given, with queued targets as extra negatives."""
    keys_MD, key_ids = vectors.targets_ND, meanings_N
    if queue is not None:
        keys_MD, key_ids = torch.cat([keys_MD, queue[0].to(keys_MD.dtype)]), torch.cat([key_ids, queue[1]])
    masked = settings.contrastive.mask_false_negatives
    return info_nce_loss(
        vectors.sources_ND,
        keys_MD,
        temperature=heads.temperature(),
        symmetric=settings.contrastive.symmetric,
        query_ids=meanings_N if masked else None,
        key_ids=key_ids if masked else None,
    )


def matching_loss(vectors: Vectors, heads: AlignmentHeads, languages_M: torch.Tensor) -> torch.Tensor:
    """L_lam over all ordered pairs of the sentences given."""
    assert vectors.matching_MD is not None
    return language_matching_loss(vectors.matching_MD, languages_M, heads.gate, heads.up, heads.down)
