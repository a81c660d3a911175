"""Eager twins of the three losses: the truth in tests, and the definition everything else is measured against.

They follow the formulas literally, in the dtype of their inputs, and store what the formulas name (the N x M similarities,
the (2N)^2 pairs). Feed them fp64 for truth.

Shape legend: T packed tokens, S spans, N queries, M keys (M >= N) or sentences, D hidden width, I classifier width.
"""

from functools import reduce

import torch
import torch.nn.functional as F


def span_mean(hidden_TD: torch.Tensor, spans_S2: torch.Tensor) -> torch.Tensor:
    """Mean of `hidden_TD[start:end]` for every span; [S, D] in the dtype of `hidden_TD`, summed in at least fp32."""
    wide_TD = hidden_TD if hidden_TD.dtype == torch.float64 else hidden_TD.float()
    means = [wide_TD[start:end].mean(0) for start, end in spans_S2.tolist()]
    return torch.stack(means).to(hidden_TD.dtype) if means else hidden_TD.new_zeros(0, hidden_TD.shape[1])


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


def _unit(vectors_XD: torch.Tensor) -> torch.Tensor:
    """x / |x|; a zero vector stays zero and passes no gradient on."""
    zero_X1 = (vectors_XD == 0).all(-1, keepdim=True)
    norms_X1 = torch.where(zero_X1, 1, vectors_XD).norm(dim=-1, keepdim=True)
    return torch.where(zero_X1, 0, vectors_XD / norms_X1)


def reduce_loss(loss_N: torch.Tensor, reduction: str) -> torch.Tensor:
    """Apply `reduction` ("mean", "sum" or "none") to one loss per row."""
    return loss_N.mean() if reduction == "mean" else loss_N.sum() if reduction == "sum" else loss_N
