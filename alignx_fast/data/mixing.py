"""The order of rows in an epoch, with small languages lifted by a temperature."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.int64]


def epoch_order(groups: Numbers, *, temperature: float, seed: int, epoch: int) -> Numbers:
    """Row numbers of one epoch, as many as there are rows; int64 [len(groups)], the same for equal arguments.

    A group of n rows fills a share of the epoch proportional to n^(1/temperature). At temperature 1 that is a permutation of
    all rows. Otherwise the rows of a group come in an endless line of permutations which the next epoch continues: no row is
    repeated before all others of its group were used.

    Raises:
        ValueError: temperature below 1.
    """
    if temperature < 1:
        raise ValueError(f"temperature is {temperature}: it must be at least 1")
    names, membership, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    counts = _apportion((sizes ** (1 / temperature)).astype(np.float64), len(groups))
    by_group = np.split(np.argsort(membership, kind="stable"), np.cumsum(sizes)[:-1]) if len(names) else []
    parts = [
        rows[_line(len(rows), epoch * count, count, seed=(seed, g))]
        for g, (rows, count) in enumerate(zip(by_group, counts.tolist(), strict=True))
    ]
    order = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
    shuffled: Numbers = np.random.default_rng((seed, epoch)).permutation(order).astype(np.int64)
    return shuffled


def language_groups(src_lang: Numbers, tgt_lang: Numbers) -> Numbers:
    """The language that each row counts for, int64 [rows]: the rarer one of its two; -1 where neither is known."""
    both = np.stack([src_lang, tgt_lang]).astype(np.int64)
    known = both[both >= 0]
    frequency = np.bincount(known, minlength=1) if known.size else np.zeros(1, dtype=np.int64)
    rank = np.where(both >= 0, frequency[np.maximum(both, 0)], np.iinfo(np.int64).max)
    groups: Numbers = np.where(rank[0] <= rank[1], both[0], both[1])
    return groups


def _apportion(weights: NDArray[np.float64], total: int) -> Numbers:
    """Whole numbers proportional to `weights` that add up to `total`: the largest remainders are rounded up."""
    if not len(weights):
        return np.zeros(0, dtype=np.int64)
    exact = weights / weights.sum() * total
    counts: Numbers = np.floor(exact + 1e-9).astype(np.int64)
    short = total - int(counts.sum())
    counts[np.argsort(-(exact - counts), kind="stable")[:short]] += 1
    return counts


def _line(n: int, start: int, count: int, *, seed: tuple[int, int]) -> Numbers:
    """Positions start to start + count of an endless line of permutations of n rows."""
    laps = range(start // n, -(-(start + count) // n))
    if not count:
        return np.zeros(0, np.int64)
    line: Numbers = np.concatenate([np.random.default_rng((*seed, lap)).permutation(n) for lap in laps])
    first = start - laps.start * n
    return line[first : first + count]
