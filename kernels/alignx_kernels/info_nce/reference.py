"""InfoNCE as the formula has it, in eager PyTorch: the truth in tests, fed with fp64. It stores the N x M similarities.

Shape legend: N queries, M keys (M >= N), D hidden width.
"""

import torch

from .problem import reduce_loss


def info_nce_loss(
    queries_ND: torch.Tensor,
    keys_MD: torch.Tensor,
    *,
    temperature: float | torch.Tensor = 0.1,
    symmetric: bool = False,
    query_ids: torch.Tensor | None = None,
    key_ids: torch.Tensor | None = None,
    reduction: str = "mean",
) -> torch.Tensor:
    """Cosine InfoNCE; key i is the positive of query i, all other keys are its negatives.

    A zero vector has cosine 0 with everything, and gradient 0. `symmetric` adds the direction from key to queries for the first
    N keys and halves the sum. Where `query_ids[i] == key_ids[j]` and i != j, the pair (i, j) is left out of both sums.
    """
    n = queries_ND.shape[0]
    logits_NM = _unit(queries_ND) @ _unit(keys_MD).T / temperature
    if query_ids is not None and key_ids is not None:
        same_NM = query_ids[:, None] == key_ids[None, :]
        same_NM = same_NM & ~torch.eye(*same_NM.shape, dtype=torch.bool, device=same_NM.device)
        logits_NM = logits_NM.masked_fill(same_NM, -torch.inf)
    positive_N = logits_NM.diagonal()
    loss_N = logits_NM.logsumexp(1) - positive_N
    if symmetric:
        loss_N = (loss_N + logits_NM[:, :n].logsumexp(0) - positive_N) / 2
    return reduce_loss(loss_N, reduction)


def _unit(vectors_XD: torch.Tensor) -> torch.Tensor:
    """x / |x|; a zero vector stays zero and passes no gradient on."""
    zero_X1 = (vectors_XD == 0).all(-1, keepdim=True)
    norms_X1 = torch.where(zero_X1, 1, vectors_XD).norm(dim=-1, keepdim=True)
    return torch.where(zero_X1, 0, vectors_XD / norms_X1)
