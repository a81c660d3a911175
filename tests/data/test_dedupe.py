"""What counts as the same: normal forms and chains of shared keys."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alignx_fast.data import dedupe
from alignx_fast.data.dedupe import components, first_of_each, key_of, normalise, pair_keys, task_keys
from alignx_fast.data.rows import Instruction, Pair


def test_normal_form():
    assert normalise("  Ｔｅａ\u00a0 Time\n") == "tea time"
    assert normalise("ÉTÉ") == normalise("e\u0301te\u0301") == "été"


def flood(rows):
    """Components by repeated merging: slow and obvious."""
    sets = [(set(keys), {i}) for i, keys in enumerate(rows)]
    merged = True
    while merged:
        merged = False
        for a in range(len(sets)):
            for b in range(a + 1, len(sets)):
                if sets[a][0] & sets[b][0]:
                    sets[a] = (sets[a][0] | sets[b][0], sets[a][1] | sets[b][1])
                    del sets[b]
                    merged = True
                    break
            if merged:
                break
    return {frozenset(members) for _, members in sets}


def numbered(rows):
    """A table of the rows' keys, as many columns as the longest row has."""
    width = max([len(keys) for keys in rows], default=1)
    return np.array([[*map(key_of, keys), *[0] * (width - len(keys))] for keys in rows], np.int64).reshape(len(rows), width)


@pytest.mark.parametrize("keys_at_once", [1, 7, 1000])
@given(rows=st.lists(st.lists(st.integers(0, 12).map(str), max_size=3), max_size=14))
@settings(max_examples=100, deadline=None)
def test_components_are_those_of_the_obvious_algorithm(keys_at_once, rows):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dedupe, "KEYS_AT_ONCE", keys_at_once)
        numbers = components(numbered(rows)).tolist()
    groups = {frozenset(i for i, n in enumerate(numbers) if n == number) for number in set(numbers)}
    assert groups == flood(rows)
    assert list(dict.fromkeys(numbers)) == list(range(len(set(numbers)))), "numbered by first appearance"


def test_a_group_name_is_never_taken_for_a_text():
    assert components(numbered([pair_keys(Pair("en", "de", "a", "b", "c")), pair_keys(Pair("en", "de", "c", "d"))])).tolist() == [
        0,
        1,
    ]


def test_short_answers_do_not_tie_instructions_together():
    rows = [Instruction("Is it tea?", "x", "yes"), Instruction("Is it rain?", "y", "yes"), Instruction("Say more.", "Y", "no")]
    assert components(numbered([task_keys(row) for row in rows])).tolist() == [0, 1, 1]


def test_a_long_chain_is_one_meaning():
    n = 5000
    order = np.random.default_rng(0).permutation(n)
    links = np.stack([order + 1, order + 2], axis=1).astype(np.int64)
    assert components(links).tolist() == [0] * n


def test_the_first_of_equal_keys_is_kept():
    assert first_of_each(np.array([3, 1, 3, 2, 1, 1])).tolist() == [True, True, False, True, False, False]
