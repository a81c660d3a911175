"""What is kept of the clean pairs: duplicates, meanings, caps, temperatures, the pivot."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from alignx_fast.corpora.engine import connect
from alignx_fast.corpora.settings import CorpusSettings
from alignx_fast.corpora.shares import shared_out, shares
from alignx_fast.errors import UserError
from tests.corpora.conftest import Prepare, Result, distinct, pair


def directed(result: Result) -> Counter[tuple[Any, Any]]:
    return Counter((row["src_lang"], row["tgt_lang"]) for row in result.rows)


def test_duplicates_in_both_directions_and_in_other_case(prepared: Prepare) -> None:
    rows = [
        pair("Good day.", "Guten Tag."),
        pair("Guten  Tag.", "GOOD DAY.", "de", "en"),
        pair("Good day.", "Buenos días.", tgt_lang="es"),
    ]
    result = prepared(rows)
    assert result.dropped == {"duplicate": 1}
    assert result.rows[0]["gid"] == result.rows[1]["gid"]
    assert len(prepared(rows, filters={"duplicates": False}, out="all").rows) == 3


def test_near_duplicates(prepared: Prepare) -> None:
    long, lang = (
        "The committee met on Monday to discuss the new bridge over the river",
        "Der Ausschuss tagte am Montag zur neuen Brücke über den Fluss",
    )
    rows = [pair(f"{long}.", f"{lang}."), pair(f"{long}!", f"{lang} !"), *distinct(3)]
    assert prepared(rows).dropped == {}
    result = prepared(rows, filters={"near_duplicates": 0.7}, out="near")
    assert result.dropped["near duplicate"] >= 1
    assert [str(row["src"]) for row in result.rows if "committee" in str(row["src"])] == [f"{long}."]


def test_a_chain_of_shared_texts_is_one_meaning(prepared: Prepare) -> None:
    rows = [pair(f"Sentence a{i // 2}.", f"Satz b{(i + 1) // 2}.") for i in range(400)]
    result = prepared(
        [
            *rows,
            pair("Alone it stands.", "Allein steht es.", gid="x"),
            pair("It is there by itself.", "Es ist für sich da.", gid="x"),
        ],
        filters={"numbers": False},
    )
    assert result.card["meanings"]["count"] == 2
    assert result.card["meanings"]["largest"] == 400
    assert result.card["meanings"]["rounds"] < 12


def test_caps(tmp_path: Any, prepared: Prepare) -> None:
    rows = [pair(f"Item {i} is red.", f"Ding {i} ist rot.") for i in range(1, 41)]
    rows += [pair(f"Item {i} is blue.", f"Kitu {i} ni bluu.", tgt_lang="sw") for i in range(1, 21)]
    assert directed(prepared(rows, max_per_direction=15, out="a")) == {("en", "de"): 15, ("en", "sw"): 15}
    assert directed(prepared(rows, max_per_language=30, out="b")) == {("en", "de"): 30, ("en", "sw"): 20}
    flat = prepared(rows, rows=30, language_temperature=100, out="c")
    assert directed(flat) == {("en", "de"): 15, ("en", "sw"): 15}
    assert directed(prepared(rows, rows=30, out="d")) == {("en", "de"): 20, ("en", "sw"): 10}
    source = {"path": str(tmp_path / "pairs.jsonl"), "max_rows": 7}
    assert len(prepared(sources=[source], out="e").rows) == 7


def test_shares_never_exceed_what_is_there() -> None:
    assert shared_out({"a": 100, "b": 3}, 50, 1000.0) == {"a": 47, "b": 3}
    assert shared_out({"a": 1, "b": 1}, 10, 1.0) == {"a": 1, "b": 1}
    assert shared_out({}, 10, 1.0) == {}
    found = shares({("sw", "en-sw"): 90, ("sw", "fr-sw"): 10, ("de", "de-en"): 900}, 100, 1000.0, 1.0)
    assert found == {("sw", "en-sw"): 45, ("sw", "fr-sw"): 5, ("de", "de-en"): 50}


def test_pairs_are_turned_and_those_without_the_pivot_limited(prepared: Prepare) -> None:
    rows = [pair(f"Item {i} is red.", f"Ding {i} ist rot.") for i in range(1, 101)]
    rows += [pair(f"Kitu {i} ni bluu.", f"Ding {i} ist blau.", "sw", "de") for i in range(1, 51)]
    assert directed(prepared(rows, to_pivot=1.0, out="a")) == {("de", "en"): 100, ("sw", "de"): 50}
    half = directed(prepared(rows, to_pivot=0.5, out="b"))
    assert half["de", "en"] + half["en", "de"] == 100
    assert 30 < half["de", "en"] < 70
    assert directed(prepared(rows, without_pivot=0.2, out="c")) == {("en", "de"): 100, ("sw", "de"): 25}


def test_pivoting_makes_a_ring_of_pairs(prepared: Prepare) -> None:
    words = {"de": "Das Tor Nummer", "sw": "Lango namba", "fr": "La porte numéro"}
    rows = [
        pair(f"Gate number {i} is open.", f"{word} {i}.", tgt_lang=lang) for i in range(1, 11) for lang, word in words.items()
    ]
    result = prepared([*rows, pair("Only here.", "Nur hier.")], pivoting=True)
    without = {direction: n for direction, n in directed(result).items() if "en" not in direction}
    assert sum(without.values()) == 30
    assert {frozenset(direction) for direction in without} == {
        frozenset({"de", "fr"}),
        frozenset({"de", "sw"}),
        frozenset({"fr", "sw"}),
    }
    assert all(
        str(row["src"]).rstrip(".").split()[-1] == str(row["tgt"]).rstrip(".").split()[-1]
        for row in result.rows
        if "en" not in (row["src_lang"], row["tgt_lang"])
    )
    assert result.card["meanings"]["count"] == 11
    assert result.card["sources"][-1]["title"] == "through en"


def test_language_identification(prepared: Prepare) -> None:
    pytest.importorskip("py3langid")
    wrong = pair("This sentence is written in the English language.", "Cette phrase est écrite dans la langue française.")
    result = prepared([wrong, *distinct(3)], filters={"language_id": 0.9})
    assert result.dropped == {"another language": 1}


def test_too_little_memory_is_one_sentence(tmp_path: Path) -> None:
    few = CorpusSettings(memory="10MB")
    with (
        pytest.raises(UserError, match=r"The 10MB of corpus.memory are too little .* `--corpus.memory 2GB`"),
        connect(few, tmp_path) as engine,
    ):
        engine.execute("SELECT list(range) FROM range(10000000)").fetchall()
