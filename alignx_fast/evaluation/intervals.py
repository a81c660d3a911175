"""Intervals around means and ratios: over held-out sentences by bootstrap, over seeds by Student's t."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from alignx_fast.evaluation.results import Interval

RESAMPLES = 1000
SEED = 12345
"""The same resamples for every model, so that two evaluations of one model agree to the digit."""
T_975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)
"""97.5 % quantile of Student's t for 1, 2, ... 10 degrees of freedom."""


def bootstrap_mean(values_by_group: Sequence[Sequence[float]]) -> Interval | None:
    """95 % percentile interval of the mean of group means, each group's values (one a sentence) drawn again with replacement.

    Groups of equal length are taken to hold the same sentences in the same order, as languages do, and are drawn together. None
    without a group of two values: one says nothing about the spread.
    """
    groups = [np.asarray(values, dtype=np.float64) for values in values_by_group if len(values)]
    if max(map(len, groups), default=0) < 2:
        return None
    random = np.random.default_rng(SEED)
    means_R = np.zeros(RESAMPLES)
    for n in sorted({len(values) for values in groups}):
        # Groups that are drawn together may be added up first.
        total_N = np.sum([values for values in groups if len(values) == n], axis=0)
        means_R += total_N[random.integers(0, n, size=(RESAMPLES, n))].mean(axis=1) / len(groups)
    return _percentiles(means_R)


def bootstrap_ratio(numerators: Sequence[float], denominators: Sequence[float]) -> Interval | None:
    """95 % percentile interval of sum(numerators) / sum(denominators), sentences drawn again; None of fewer than two.

    `denominators` are positive.
    """
    if len(numerators) < 2:
        return None
    draws_RN = np.random.default_rng(SEED).integers(0, len(numerators), size=(RESAMPLES, len(numerators)))
    above_R, below_R = (np.asarray(values, dtype=np.float64)[draws_RN].sum(axis=1) for values in (numerators, denominators))
    return _percentiles(above_R / below_R)


def _percentiles(values_R: NDArray[np.float64]) -> Interval:
    low, high = np.quantile(values_R, [0.025, 0.975])
    return Interval(low=float(low), high=float(high))


def seeds_interval(values: Sequence[float]) -> Interval | None:
    """95 % interval of the mean over seeds, by Student's t; None of fewer than two values or more than eleven."""
    if not 2 <= len(values) <= len(T_975) + 1:
        return None
    mean, deviation = float(np.mean(values)), float(np.std(values, ddof=1))
    half = T_975[len(values) - 2] * deviation / math.sqrt(len(values))
    return Interval(low=mean - half, high=mean + half)
