"""What counts as the same: normal forms and chains of shared keys."""

from hypothesis import given, settings
from hypothesis import strategies as st

from alignx_fast.data.dedupe import components, normalise, pair_keys, task_keys
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


@given(st.lists(st.lists(st.integers(0, 12), max_size=3), max_size=14))
@settings(max_examples=200, deadline=None)
def test_components_are_those_of_the_obvious_algorithm(rows):
    numbers = components(rows).tolist()
    groups = {frozenset(i for i, n in enumerate(numbers) if n == number) for number in set(numbers)}
    assert groups == flood(rows)
    assert sorted(set(numbers)) == list(range(len(set(numbers))))


def test_a_group_name_is_never_taken_for_a_text():
    assert components([pair_keys(Pair("en", "de", "a", "b", "c")), pair_keys(Pair("en", "de", "c", "d"))]).tolist() == [0, 1]


def test_short_answers_do_not_tie_instructions_together():
    rows = [Instruction("Is it tea?", "x", "yes"), Instruction("Is it rain?", "y", "yes"), Instruction("Say more.", "Y", "no")]
    assert components([task_keys(row) for row in rows]).tolist() == [0, 1, 1]
