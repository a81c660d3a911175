"""Find the translation of a sentence among the sentences of another language by cosine similarity."""

from collections.abc import Iterator, Sequence
from itertools import combinations

import torch
import torch.nn.functional as F

from alignx_fast.evaluation.results import PairRetrieval, Retrieval

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


def retrieval(vectors_LND: torch.Tensor, has_LN: torch.Tensor, languages: Sequence[str]) -> Retrieval:
    """Top-1 accuracy for every ordered pair of languages that share two meanings."""
    pairs: dict[str, PairRetrieval] = {}
    guesses: list[float] = []  # what guessing scores in each direction
    for a, b, a_ND, b_ND in language_pairs(F.normalize(vectors_LND, dim=-1), has_LN):
        similarity_NN = a_ND @ b_ND.T
        n = len(a_ND)
        pairs[f"{languages[a]}-{languages[b]}"] = PairRetrieval(top1=top1(similarity_NN), n=n)
        pairs[f"{languages[b]}-{languages[a]}"] = PairRetrieval(top1=top1(similarity_NN.T), n=n)
        guesses += [1 / n, 1 / n]
    if not pairs:
        return Retrieval()
    return Retrieval(
        chance=sum(guesses) / len(pairs),
        average=sum(pair.top1 for pair in pairs.values()) / len(pairs),
        pairs=dict(sorted(pairs.items())),
    )
