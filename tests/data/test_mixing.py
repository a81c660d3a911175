"""Epoch order: a permutation at temperature 1, lifted small groups above it, nothing repeated too early, always the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignx_fast.data.mixing import epoch_order, language_groups

GROUPS = np.repeat([0, 1, 2], [900, 90, 10])


@given(st.lists(st.integers(0, 4), max_size=80), st.integers(0, 3), st.integers(0, 3))
@settings(max_examples=100, deadline=None)
def test_temperature_one_is_a_permutation(groups, seed, epoch):
    order = epoch_order(np.array(groups, dtype=np.int64), temperature=1.0, seed=seed, epoch=epoch)
    assert sorted(order.tolist()) == list(range(len(groups)))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.floats(1, 10))
@settings(max_examples=100, deadline=None)
def test_rows_of_a_group_are_used_evenly_over_epochs(groups, temperature):
    groups = np.array(groups)
    used = np.zeros(len(groups), dtype=int)
    for epoch in range(3):
        order = epoch_order(groups, temperature=temperature, seed=0, epoch=epoch)
        assert len(order) == len(groups)
        used += np.bincount(order, minlength=len(groups))
        for group in np.unique(groups):
            assert np.ptp(used[groups == group]) <= 1, "no row again before all others of its group"


def test_shares_follow_the_temperature():
    for temperature in (1.0, 2.0, 5.0):
        order = epoch_order(GROUPS, temperature=temperature, seed=0, epoch=0)
        expected = np.array([900, 90, 10]) ** (1 / temperature)
        assert np.abs(np.bincount(GROUPS[order]) / 1000 - expected / expected.sum()).max() <= 0.001


def test_order_depends_on_seed_and_epoch_alone():
    one = epoch_order(GROUPS, temperature=2.0, seed=1, epoch=3)
    assert (one == epoch_order(GROUPS, temperature=2.0, seed=1, epoch=3)).all()
    assert (one != epoch_order(GROUPS, temperature=2.0, seed=1, epoch=4)).any()
    assert (one != epoch_order(GROUPS, temperature=2.0, seed=2, epoch=3)).any()


def test_groups_are_mixed_not_in_blocks():
    order = epoch_order(GROUPS, temperature=1.0, seed=0, epoch=0)
    assert 0.7 < (GROUPS[order[:500]] == 0).mean() < 1


def test_a_temperature_below_one_is_refused():
    with pytest.raises(ValueError, match=r"is 0\.5"):
        epoch_order(GROUPS, temperature=0.5, seed=0, epoch=0)


def test_a_row_counts_for_its_rarer_language():
    src, tgt = np.array([0, 0, 0, 1, -1, 2]), np.array([1, 1, 2, 0, -1, 2])
    assert language_groups(src, tgt).tolist() == [1, 1, 2, 1, -1, 2]
    assert language_groups(np.array([-1]), np.array([-1])).tolist() == [-1]
