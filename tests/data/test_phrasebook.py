"""The built-in phrasebook: complete, balanced, and with held-out fillings that training cannot have seen."""

import re
from collections import Counter

import pytest

from alignx_fast.data.dedupe import normalise
from alignx_fast.data.phrasebook import FILLINGS_PER_SENTENCE, load_phrasebook

LANGUAGES = {"en", "de", "fr", "es", "sw", "ru", "hi", "zh"}


@pytest.fixture(scope="module")
def book():
    return load_phrasebook(0)


def sentence(meaning):
    return ":".join(meaning.id.split(":")[:2])


def test_every_meaning_has_all_languages_and_no_slot_left(book):
    for meaning in [*book.train, *book.held_out]:
        assert set(meaning.texts) == LANGUAGES
        for text in meaning.texts.values():
            assert text.strip() == text
            assert text
            assert not re.search(r"[{}\t]|  ", text)
            assert not text[0].islower()


def test_sizes_and_balance(book):
    assert 1000 < len(book.train) < 10_000
    assert len(book.held_out) >= 300
    assert max(Counter(map(sentence, book.train)).values()) <= FILLINGS_PER_SENTENCE
    assert max(Counter(map(sentence, book.held_out)).values()) <= 2


def test_held_out_sentences_are_known_to_training_but_not_their_filling(book):
    trained = set(map(sentence, book.train))
    assert all(sentence(meaning) in trained for meaning in book.held_out)
    seen = {normalise(text) for meaning in book.train for text in meaning.texts.values()}
    assert not any(normalise(text) in seen for meaning in book.held_out for text in meaning.texts.values())


def test_held_out_sentences_are_all_different_in_every_language(book):
    for language in LANGUAGES:
        assert len({normalise(meaning.texts[language]) for meaning in book.held_out}) == len(book.held_out)


def test_the_seed_decides(book):
    load_phrasebook.cache_clear()
    assert load_phrasebook(0).held_out == book.held_out
    assert load_phrasebook(1).held_out != book.held_out


def test_instructions_in_all_languages(book):
    by_language = Counter(row.lang for row in book.instructions)
    assert set(by_language) == LANGUAGES
    assert len(set(by_language.values())) == 1
    assert all(row.instruction and row.output and row.input != "-" for row in book.instructions)
    assert any(not row.input for row in book.instructions)
