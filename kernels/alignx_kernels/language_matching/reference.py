"""Language matching as the formula has it, in eager PyTorch: the truth in tests, fed with fp64. It stores all M^2 pairs.

Shape legend: M sentences, D hidden width, I classifier width.
"""

from functools import reduce

import torch
import torch.nn.functional as F


def language_matching_loss(
    embeddings_MD: torch.Tensor,
    languages_M: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    *,
    reduction: str = "mean",
) -> torch.Tensor:
    """Cross entropy of "do a and b share a language" over all ordered pairs (a, b), a = b included.

    z = down(silu(gate [e_a ; e_b]) * (up [e_a ; e_b])) with gate, up: [I, 2D] and down: [2, I]. With reduction "none" the result
    is [M]: the sum over b for every a. Inputs of different dtypes are promoted to the widest.
    """
    m = embeddings_MD.shape[0]
    dtype = reduce(torch.promote_types, [tensor.dtype for tensor in (embeddings_MD, gate, up, down)])
    embeddings_MD, gate, up, down = (tensor.to(dtype) for tensor in (embeddings_MD, gate, up, down))
    pairs = torch.cat([embeddings_MD[:, None].expand(m, m, -1), embeddings_MD[None, :].expand(m, m, -1)], dim=-1)
    logits = (F.silu(pairs @ gate.T) * (pairs @ up.T)) @ down.T
    same = (languages_M[:, None] == languages_M[None, :]).long()
    loss_MM = F.cross_entropy(logits.reshape(m * m, 2), same.reshape(m * m), reduction="none").reshape(m, m)
    if reduction == "none":
        return loss_MM.sum(1)
    return loss_MM.mean() if reduction == "mean" else loss_MM.sum()
