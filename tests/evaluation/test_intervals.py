"""Intervals against what a library says."""

import numpy as np
import pytest

from alignx_fast.evaluation.intervals import bootstrap_mean, bootstrap_ratio, seeds_interval


def test_bootstrap_agrees_with_the_normal_interval() -> None:
    """For many values, the percentile interval is that of the normal distribution, and always the same."""
    values = np.random.default_rng(0).normal(3.0, 2.0, size=2000).tolist()
    interval = bootstrap_mean([values])
    assert interval is not None
    half = 1.96 * 2.0 / 2000**0.5
    assert interval.low == pytest.approx(np.mean(values) - half, abs=0.15 * half)
    assert interval.high == pytest.approx(np.mean(values) + half, abs=0.15 * half)
    assert bootstrap_mean([values]) == interval


def test_groups_with_the_same_sentences_are_drawn_together() -> None:
    """Two languages that fail on the same sentences give as wide an interval as one: their sentences are not twice the evidence."""
    values = [0.0, 1.0] * 50
    assert bootstrap_mean([values, values]) == bootstrap_mean([values])


def test_groups_with_other_sentences_are_drawn_apart() -> None:
    """Every group counts the same, whatever its length."""
    interval = bootstrap_mean([[1.0] * 10, [3.0] * 30, [3.0] * 10])
    assert interval is not None
    assert interval.low == interval.high == pytest.approx(7 / 3)


def test_ratio_of_sums() -> None:
    """With equal denominators it is a mean; a long sentence counts more than a short one."""
    values = np.random.default_rng(1).normal(3.0, 2.0, size=50).tolist()
    mean, ratio = bootstrap_mean([values]), bootstrap_ratio([2 * value for value in values], [2.0] * 50)
    assert mean is not None
    assert ratio is not None
    assert (ratio.low, ratio.high) == pytest.approx((mean.low, mean.high))
    constant = bootstrap_ratio([1.0, 30.0], [0.5, 15.0])
    assert constant is not None
    assert constant.low == constant.high == 2
    assert bootstrap_ratio([], []) is None


def test_nothing_has_no_interval() -> None:
    """No value, one sentence, or one seed, says nothing about the spread."""
    assert bootstrap_mean([]) is None
    assert bootstrap_mean([[]]) is None
    assert bootstrap_mean([[1.0], [2.0]]) is None
    assert bootstrap_ratio([1.0], [2.0]) is None
    assert seeds_interval([1.0]) is None


def test_seeds_interval() -> None:
    """Three seeds: mean -+ 4.303 standard errors."""
    interval = seeds_interval([1.0, 2.0, 3.0])
    assert interval is not None
    assert interval.low == pytest.approx(2 - 4.303 / 3**0.5)
    assert interval.high == pytest.approx(2 + 4.303 / 3**0.5)
