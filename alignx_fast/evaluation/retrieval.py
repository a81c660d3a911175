"""Find the translation of a sentence among the sentences of another language by cosine similarity."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import torch
import torch.nn.functional as F

TIE = 1e-6  # cosines closer than this are rounding: a tie, and a tie is a miss


def language_pairs(vectors_LND: torch.Tensor, has_LN: torch.Tensor) -> Iterator[tuple[int, int, torch.Tensor, torch.Tensor]]:
    """Every unordered pair of languages (a, b) with the vectors [n, D] of the meanings that both have; n >= 2."""
    for a, b in combinations(range(len(vectors_LND)), 2):
        common = has_LN[a] & has_LN[b]
        if common.sum() >= 2:
            yield a, b, vectors_LND[a, common], vectors_LND[b, common]


def top1(similarity_NM: torch.Tensor) -> float:
    """Share of rows whose own column (the diagonal) is strictly the most similar; NaN counts as a miss."""
    others_NM = similarity_NM.clone()
    others_NM.fill_diagonal_(-torch.inf)
    return (similarity_NM.diagonal() > others_NM.amax(1) + TIE).float().mean().item()


def retrieval(vectors_LND: torch.Tensor, has_LN: torch.Tensor, languages: Sequence[str]) -> dict:
    """Top-1 accuracy for every ordered pair of languages: {"chance", "average", "pairs": {"de-en": {"top1", "n"}}}.

    `chance` is the mean of 1/n over the pairs. Both averages are None where no two languages share two meanings.
    """
    pairs = {}
    for a, b, a_ND, b_ND in language_pairs(F.normalize(vectors_LND, dim=-1), has_LN):
        similarity_NN = a_ND @ b_ND.T
        pairs[f"{languages[a]}-{languages[b]}"] = {"top1": top1(similarity_NN), "n": len(a_ND)}
        pairs[f"{languages[b]}-{languages[a]}"] = {"top1": top1(similarity_NN.T), "n": len(a_ND)}
    return {
        "chance": sum(1 / pair["n"] for pair in pairs.values()) / len(pairs) if pairs else None,
        "average": sum(pair["top1"] for pair in pairs.values()) / len(pairs) if pairs else None,
        "pairs": dict(sorted(pairs.items())),
    }
