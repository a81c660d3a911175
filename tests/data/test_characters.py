"""Characters that are no text, and values that are missing."""

import json

import pytest

from alignx_fast.config import InstructionSource, ParallelSource
from alignx_fast.data.characters import escaped, is_broken
from alignx_fast.data.corpora import read_instructions, read_meanings, read_pairs
from alignx_fast.data.rows import Dropped, Pair, Reason
from alignx_fast.printing import one_line, printable

BROKEN = ["half \ud83d of a pair", "\x1b[31mred", "nothing\x00", "bell\x07", "\x9b31mred"]
WHOLE = ["tab\tand\nline", "\u2028 \x85", "😀", "Zug"]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")  # escapes what no file can hold
    return str(path)


@pytest.mark.parametrize("text", BROKEN)
def test_broken_text_is_told_and_written_out(text):
    assert is_broken(text)
    assert not is_broken(escaped(text))
    escaped(text).encode("utf-8")


@pytest.mark.parametrize("text", WHOLE)
def test_whole_text_is_left_alone(text):
    assert not is_broken(text)
    assert escaped(text) == text


@pytest.mark.parametrize("text", [*BROKEN, "a\rb", "a\x85b", "a\u2028b", "\u202eolleh", "\u2066x\u2069", "\x7f"])
def test_what_a_terminal_obeys_is_written_out(text):
    assert "\\" in printable(text)
    assert printable(printable(text)) == printable(text)
    printable(text).encode("utf-8")
    assert len(one_line(f"{text}\n\t{text}").splitlines()) == 1


@pytest.mark.parametrize("text", ["tab\tand\nline", "e\u0301 नमस्ते 👨\u200d👩\u200d👧 \u200fשלום", "\\x1b"])
def test_what_can_be_printed_is_left_alone(text):
    assert printable(text) == text


def test_broken_rows_are_dropped_and_counted(tmp_path):
    pairs = [{"src_lang": "en", "tgt_lang": "de", "src": text, "tgt": "Zug"} for text in [*BROKEN, "train"]]
    rows = list(read_pairs(ParallelSource(path=write(tmp_path / "pairs.jsonl", pairs))))
    assert [type(row) for row in rows] == [*[Dropped] * len(BROKEN), Pair]
    assert {row.reason for row in rows[:-1]} == {Reason.BROKEN}
    for row in rows[:-1]:
        row.text.encode("utf-8")
    tasks = [{"instruction": "Say it", "input": "", "output": text} for text in [*BROKEN, "it"]]
    rows = list(read_instructions(InstructionSource(path=write(tmp_path / "tasks.jsonl", tasks))))
    assert [getattr(row, "reason", None) for row in rows] == [*[Reason.BROKEN] * len(BROKEN), None]


def test_evaluation_leaves_broken_texts_out(tmp_path):
    path = write(tmp_path / "eval.jsonl", [{"id": 1, "texts": {"en": BROKEN[0], "de": "Zug"}}])
    assert [meaning.texts for meaning in read_meanings(path)] == [{"de": "Zug"}]


@pytest.mark.parametrize("missing", [None, "", "  ", float("nan"), "NaN", "null"])
def test_a_missing_id_joins_nothing(tmp_path, missing):
    pairs = [{"src_lang": "en", "tgt_lang": "de", "src": f"s{i}", "tgt": f"t{i}", "gid": missing} for i in range(3)]
    rows = list(read_pairs(ParallelSource(path=write(tmp_path / "pairs.jsonl", pairs))))
    assert [row.group for row in rows] == [None] * 3
    meanings = [{"id": missing, "gid": missing, "texts": {"en": f"s{i}", "de": f"t{i}"}} for i in range(3)]
    path = write(tmp_path / "meanings.jsonl", meanings)
    groups = [row.group for row in read_pairs(ParallelSource(path=path))]
    assert len(set(groups)) == 3
    assert [meaning.id for meaning in read_meanings(path)] == [f"{path}:{line}" for line in (1, 2, 3)]


def test_an_id_of_zero_is_an_id(tmp_path):
    pairs = [{"src_lang": "en", "tgt_lang": "de", "src": f"s{i}", "tgt": f"t{i}", "gid": 0} for i in range(2)]
    assert [row.group for row in read_pairs(ParallelSource(path=write(tmp_path / "p.jsonl", pairs)))] == ["0", "0"]


def test_an_id_that_is_no_text_is_written_out(tmp_path):
    path = write(tmp_path / "m.jsonl", [{"id": "\ud83d", "gid": "\x1b", "texts": {"en": "a", "de": "b", "sw": "c"}}])
    assert [meaning.id for meaning in read_meanings(path)] == ["\\ud83d"]
    assert {row.group for row in read_pairs(ParallelSource(path=path))} == {"\\x1b"}
