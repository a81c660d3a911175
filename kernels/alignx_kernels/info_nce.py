"""Cosine InfoNCE over large in-batch negatives."""

import torch

from . import reference


def info_nce_loss(queries_ND: torch.Tensor, keys_MD: torch.Tensor, *, temperature=0.1, symmetric=False, query_ids=None,
                  key_ids=None, reduction="mean", impl: str | None = None) -> torch.Tensor:
    return reference.info_nce_loss(queries_ND, keys_MD, temperature=temperature, symmetric=symmetric, query_ids=query_ids,
                                   key_ids=key_ids, reduction=reduction)
