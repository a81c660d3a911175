"""Rules that change what an English sentence says."""

import pytest

from alignx_fast.evaluation.hard_negatives import (
    Edit,
    Kind,
    causality_edits,
    entity_edits,
    hard_negatives,
    name_pools,
    names,
    number_edits,
)


def changed(text: str, edits: list[Edit]) -> set[str]:
    return {text[: edit.start] + option + text[edit.end :] for edit in edits for option in edit.options}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It is open.", {"It is not open.", "It is closed."}),
        ("It is not here.", {"It is here."}),
        ("They weren't seen.", {"They were seen."}),
        ("Birds can fly.", {"Birds cannot fly."}),
        ("We cannot fly.", {"We can fly."}),
        ("After lunch they met.", {"Before lunch they met."}),
        ("He came to New York in May.", set()),
        ("A 28-year-old came.", set()),
        ("Nothing to see.", {"Everything to see."}),
        ("", set()),
    ],
)
def test_causality(text: str, expected: set[str]) -> None:
    """Negations and opposites; not within names and compounds."""
    assert changed(text, list(causality_edits(text))) == expected


def test_numbers() -> None:
    """One digit, never to zero; number words among their like; no digits that belong to a word."""
    assert changed("In 90 days", list(number_edits("In 90 days"))) == {
        *(f"In {digit}0 days" for digit in "12345678"),
        *(f"In 9{digit} days" for digit in "123456789"),
    }
    assert changed("a million", list(number_edits("a million"))) == {"a hundred", "a thousand", "a billion"}
    assert len(changed("Seven of 3.5", list(number_edits("Seven of 3.5")))) == 10 + 8 + 8
    assert not list(number_edits("the A380 and the 19th"))


def test_names_are_found_within_sentences() -> None:
    """Not at their beginning, where every word has a capital."""
    text = (
        "The Bank of England said: \"We met the Bank of Spain and O'Brien's men on Monday.\" Yesterday I saw Mr Li in Paris-Nord."
    )
    assert [name.group() for name in names(text)] == ["Bank of Spain", "O'Brien", "Monday", "Mr Li", "Paris-Nord"]


def test_entities_are_replaced_by_their_like() -> None:
    """Weekdays by weekdays, acronyms by acronyms, names by names of other sentences with as many words."""
    sentences = [
        "He saw Anna in New York on Friday.",
        "She met Boris near Los Angeles.",
        "It is the UN or the EU.",
        "He saw NATO.",
    ]
    pools = name_pools(sentences)
    found = changed(sentences[0], list(entity_edits(sentences[0], pools)))
    assert "He saw Boris in New York on Friday." in found
    assert "He saw Anna in Los Angeles on Friday." in found
    assert "He saw Anna in New York on Monday." in found
    assert len(found) == 1 + 1 + 6
    assert changed(sentences[3], list(entity_edits(sentences[3], pools))) == {"He saw UN.", "He saw EU."}
    assert changed(sentences[2], list(entity_edits(sentences[2], pools))) == {
        "It is the NATO or the EU.",
        "It is the UN or the NATO.",
    }


def test_one_of_a_kind_and_always_the_same() -> None:
    """Numbered by the sentence they were made from; what equals another sentence is no negative."""
    sentences = {
        4: "It is two hours to Rome.",
        9: "They went to Oslo.",
        11: "It is big.",
        12: "It is little.",
        13: "It is not big.",
    }
    negatives = hard_negatives(sentences)
    assert [(negative.sentence, negative.kind) for negative in negatives][:4] == [
        (4, Kind.CAUSALITY),
        (4, Kind.ENTITY),
        (4, Kind.NUMBER),
        (9, Kind.ENTITY),
    ]
    assert sorted(negatives) == sorted(hard_negatives(dict(reversed(sentences.items()))))
    assert negatives[1].text == "It is two hours to Oslo."
    assert not {negative.text for negative in negatives} & set(sentences.values())
    assert hard_negatives({}) == []
