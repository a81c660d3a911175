"""Find the translation of a sentence among the sentences of another language: by cosine, by margin, and among hard negatives.

Shape legend: L languages, N meanings (n of them in both languages), H hard negatives, D hidden width.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import NamedTuple

import torch
import torch.nn.functional as F

from alignx_fast.evaluation.hard_negatives import Kind
from alignx_fast.evaluation.intervals import bootstrap_mean
from alignx_fast.evaluation.neighbours import nearest
from alignx_fast.evaluation.results import Interval, PairRetrieval, Retrieval
from alignx_fast.evaluation.xsim import K, nearest_is_own, picks


class HardVectors(NamedTuple):
    """Hard negatives of the sentences of one language."""

    language: int
    meanings_H: torch.Tensor
    """int64: the sentence that each was made from."""
    kinds: Sequence[Kind]
    vectors_HD: torch.Tensor


@dataclass(frozen=True)
class Search:
    """What was found for each of the n sentences that two languages share; all in CPU memory."""

    source: int
    target: int
    found: torch.Tensor
    """[n] bool: the translation is the nearest by cosine."""
    picks: torch.Tensor
    """[n] int64: the number of the sentence with the largest margin; see `xsim.picks`."""
    hard_picks: torch.Tensor | None = None
    """[n] the same where the target's hard negatives, numbered from n on, are candidates too."""
    hard_kinds: tuple[Kind, ...] = ()
    """The kinds of these hard negatives."""


def language_pairs(
    vectors_LND: torch.Tensor, has_LN: torch.Tensor, device: torch.device | str = "cpu"
) -> Iterator[tuple[int, int, torch.Tensor, torch.Tensor]]:
    """Every unordered pair of languages (a, b) with the vectors [n, D] of the meanings that both have, on `device`; n >= 2."""
    for a, b in combinations(range(len(vectors_LND)), 2):
        common = has_LN[a] & has_LN[b]
        if common.sum() >= 2:
            yield a, b, vectors_LND[a, common].to(device), vectors_LND[b, common].to(device)


def search(
    vectors_LND: torch.Tensor, has_LN: torch.Tensor, hard: HardVectors | None = None, device: torch.device | str = "cpu"
) -> list[Search]:
    """Both directions of every pair of languages that share two meanings."""
    searches = []
    for a, b, a_ND, b_ND in language_pairs(vectors_LND, has_LN, device):
        common_N = has_LN[a] & has_LN[b]
        a_ND, b_ND = F.normalize(a_ND, dim=-1), F.normalize(b_ND, dim=-1)
        to_b, to_a = nearest(a_ND, b_ND, K)
        searches.append(
            Search(a, b, nearest_is_own(to_b).cpu(), picks(to_b, to_a).cpu(), *_among_hard(hard, b, a_ND, b_ND, common_N))
        )
        searches.append(
            Search(b, a, nearest_is_own(to_a).cpu(), picks(to_a, to_b).cpu(), *_among_hard(hard, a, b_ND, a_ND, common_N))
        )
    return searches


def _among_hard(
    hard: HardVectors | None, target: int, source_ND: torch.Tensor, target_ND: torch.Tensor, common_N: torch.Tensor
) -> tuple[torch.Tensor | None, tuple[Kind, ...]]:
    """The picks among the targets and their hard negatives, and the kinds of these; (None, ()) for a target that has none."""
    if hard is None or hard.language != target:
        return None, ()
    rows = common_N[hard.meanings_H].nonzero()[:, 0]
    negatives_HD = F.normalize(hard.vectors_HD[rows].to(target_ND.device), dim=-1)
    picked = picks(*nearest(source_ND, torch.cat([target_ND, negatives_HD]), K))
    return picked.cpu(), tuple(hard.kinds[row] for row in rows.tolist())


# Scores: one value for each sentence, empty where the score is not defined.

Score = Callable[[Search], list[float]]


def top1(found: Search) -> list[float]:
    """1 for every sentence whose translation is the nearest."""
    return found.found.double().tolist()


def xsim(found: Search) -> list[float]:
    """1 for every sentence for which margin-based search picks another than its translation."""
    return _errors(found.picks)


def xsimpp(found: Search) -> list[float]:
    """The same where hard negatives are candidates too; nothing for a target without them."""
    return [] if found.hard_picks is None else _errors(found.hard_picks)


def _errors(picked: torch.Tensor) -> list[float]:
    return (picked != torch.arange(len(picked))).double().tolist()


class Average(NamedTuple):
    """A mean and its interval; None of nothing."""

    value: float | None
    interval: Interval | None


def average(searches: Sequence[Search], score: Score) -> Average:
    """Mean over the searches that have the score of the mean over their sentences."""
    groups = [values for found in searches if (values := score(found))]
    return Average(fmean(map(fmean, groups)) if groups else None, bootstrap_mean(groups))


def retrieval(searches: Sequence[Search], languages: Sequence[str]) -> Retrieval:
    """Averages at one layer, and every direction."""
    if not searches:
        return Retrieval()
    top1_average, xsim_average, xsimpp_average = (average(searches, score) for score in (top1, xsim, xsimpp))
    pairs = {f"{languages[found.source]}-{languages[found.target]}": pair_retrieval(found) for found in searches}
    return Retrieval(
        chance=fmean(1 / len(found.found) for found in searches),
        average=top1_average.value,
        average_interval=top1_average.interval,
        xsim=xsim_average.value,
        xsim_interval=xsim_average.interval,
        xsimpp=xsimpp_average.value,
        xsimpp_interval=xsimpp_average.interval,
        pairs=dict(sorted(pairs.items())),
    )


def pair_retrieval(found: Search) -> PairRetrieval:
    """The scores of one direction."""
    top1_mean, xsim_mean, xsimpp_mean = (average([found], score) for score in (top1, xsim, xsimpp))
    assert top1_mean.value is not None  # every search has it
    return PairRetrieval(
        top1=top1_mean.value,
        top1_interval=top1_mean.interval,
        xsim=xsim_mean.value,
        xsim_interval=xsim_mean.interval,
        xsimpp=xsimpp_mean.value,
        xsimpp_interval=xsimpp_mean.interval,
        xsimpp_by_kind=_shares_of_kinds(found),
        n=len(found.found),
    )


def _shares_of_kinds(found: Search) -> dict[str, float]:
    """Of all sentences, the share for which a hard negative of each kind was picked."""
    if found.hard_picks is None:
        return {}
    n = len(found.hard_picks)
    picked = Counter(found.hard_kinds[pick - n] for pick in found.hard_picks.tolist() if pick >= n)
    return {kind.value: picked[kind] / n for kind in Kind}
