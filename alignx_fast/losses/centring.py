"""Sentence vectors without what all sentences of a language share."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F


def centred(vectors: Sequence[torch.Tensor], languages: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Subtract from each sentence vector the mean vector of its language over all the sentences given.

    Most of what separates translations in a decoder is one constant vector a language. With it taken away a contrastive loss has to align
    meanings, and need not move whole languages onto each other. The gradient flows through the means.

    Args:
        vectors: [N_i, D] each, any dtype.
        languages: [N_i] each, int64 language numbers from 0, on the vectors' device; -1 is unknown, and its vectors stay as they are.

    Returns:
        [N_i, D] each, in fp32 or better. A language with a single sentence gives a vector of zeros, which nothing is learned from.
    """
    sizes = [len(part) for part in vectors]
    all_SD, languages_S = torch.cat(list(vectors)), torch.cat(list(languages))
    all_SD = all_SD.to(torch.promote_types(all_SD.dtype, torch.float32))
    # A product instead of index_add, whose order of additions differs from run to run on a GPU; autocast would take it in bf16.
    with torch.autocast(all_SD.device.type, enabled=False):
        member_SK = F.one_hot(languages_S + 1)[:, 1:].to(all_SD.dtype)
        means_KD = member_SK.T @ all_SD / member_SK.sum(0).clamp(min=1)[:, None]
        return list(torch.split(all_SD - member_SK @ means_KD, sizes))
