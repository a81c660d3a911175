"""Readers: every format gives the same rows, and every mistake names file, line and fix."""

import gzip
import json

import pytest

from alignx_fast.config import InstructionSource, ParallelSource
from alignx_fast.data.corpora import read_instructions, read_meanings, read_pairs, ring
from alignx_fast.data.rows import Dropped, Instruction, Pair, Reason
from alignx_fast.errors import UserError

ROWS = [("Tea.", "Tee."), ("Where is\u2028it?", "Wo ist es?"), ("Rain!\x85", "Regen!")]
"""With characters that str.splitlines takes for line ends."""


def write(path, text):
    data = text.encode("utf-8")
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return str(path)


def jsonl(path, rows):
    return write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def texts(source, **kwargs):
    return [(row.src_lang, row.tgt_lang, row.src, row.tgt) for row in read_pairs(ParallelSource(**source), **kwargs)]


EXPECTED = [("en", "de", src.strip(), tgt) for src, tgt in ROWS]


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_all_formats_give_the_same_rows(tmp_path, ending):
    full = [{"src_lang": "en", "tgt_lang": "deu_Latn", "src": src, "tgt": tgt} for src, tgt in ROWS]
    other = [{"english": src, "german": tgt} for src, tgt in ROWS]
    sides = {"src_lang": "en", "tgt_lang": "de"}
    assert texts({"path": jsonl(tmp_path / f"a.jsonl{ending}", full)}) == EXPECTED
    assert (
        texts({"path": jsonl(tmp_path / f"b.json{ending}", other), "columns": {"src": "english", "tgt": "german"}} | sides)
        == EXPECTED
    )
    multi = [{"gid": str(i), "texts": {"en": src, "de": tgt, "fr": None}} for i, (src, tgt) in enumerate(ROWS)]
    assert texts({"path": jsonl(tmp_path / f"c.jsonl{ending}", multi)} | sides) == EXPECTED
    lines = "".join(f"{src}\t{tgt}\n" for src, tgt in ROWS)
    assert texts({"path": write(tmp_path / f"d.tsv{ending}", "src\ttgt\n" + lines)} | sides) == EXPECTED
    counted = {"path": write(tmp_path / f"e.tsv{ending}", lines), "columns": {"src": "1", "tgt": "2"}}
    assert texts(counted | sides) == EXPECTED
    german = write(tmp_path / f"f.de{ending}", "".join(tgt + "\n" for _, tgt in ROWS))
    english = write(tmp_path / f"f.en{ending}", "\ufeff" + "".join(src + "\r\n" for src, _ in ROWS))
    assert texts({"path": english, "target_path": german}) == EXPECTED


def test_hugging_face_folders(tmp_path):
    import datasets

    flat = datasets.Dataset.from_dict({"src": [s for s, _ in ROWS], "tgt": [t for _, t in ROWS]})
    flat.save_to_disk(tmp_path / "flat")
    assert texts({"path": str(tmp_path / "flat"), "src_lang": "en", "tgt_lang": "de"}) == EXPECTED
    opus = datasets.DatasetDict({"train": datasets.Dataset.from_list([{"translation": {"en": s, "de": t}} for s, t in ROWS])})
    opus.save_to_disk(tmp_path / "opus")
    source = {"path": str(tmp_path / "opus"), "format": "hf", "src_lang": "en", "tgt_lang": "de"}
    assert texts(source) == EXPECTED
    first = next(read_pairs(ParallelSource(**source)))
    assert first.where.endswith("opus[train]:0")
    with pytest.raises(UserError, match=r"no split `dev`\. It has train"):
        texts(source | {"split": "dev"})


def test_groups_and_places(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"src_lang": "en", "tgt_lang": "de", "src": "a", "tgt": "b", "gid": 7}])
    assert list(read_pairs(ParallelSource(path=path))) == [Pair("en", "de", "a", "b", "7", f"{path}:1")]


def test_ids_of_a_file_are_its_own_but_gids_are_shared(tmp_path):
    rows = [{"id": 1, "texts": {"en": "a", "de": "b"}}, {"gid": "g", "texts": {"en": "c", "de": "d"}}]
    one, two = (jsonl(tmp_path / name, rows) for name in ("one.jsonl", "two.jsonl"))
    first, second = ([row.group for row in read_pairs(ParallelSource(path=path))] for path in (one, two))
    assert first[0] != second[0]
    assert first[1] == second[1] == "g"


def test_a_ring_uses_every_language_twice_and_all_pairs_in_turn():
    languages = ["en", "de", "fr", "sw", "zh"]
    pairs = ring(languages, "key")
    assert sorted(a for a, _ in pairs) == sorted(b for _, b in pairs) == sorted(languages)
    assert ring(languages[::-1], "key") == pairs
    everywhere = {pair for key in range(200) for pair in ring(languages, str(key))}
    assert len(everywhere) == 20
    assert {frozenset(pair) for pair in ring(["en", "de"], "key")} == {frozenset(("en", "de"))}
    assert len(ring(["en", "de"], "key")) == 1


def test_unusable_rows_come_out_with_a_reason(tmp_path):
    rows = [("en", "de", "a", " "), ("en", "de", "OK", " OK"), ("en", "fr", "a", "b"), ("en", "de", "a", None)]
    path = jsonl(tmp_path / "a.jsonl", [dict(zip(("src_lang", "tgt_lang", "src", "tgt"), row, strict=True)) for row in rows])
    read = list(read_pairs(ParallelSource(path=path), ["en", "de"]))
    assert [row.reason for row in read] == [Reason.EMPTY, Reason.SAME, Reason.LANGUAGE, Reason.EMPTY]
    path = jsonl(tmp_path / "b.jsonl", [{"texts": {"en": "a", "de": ""}}, {"texts": {"en": "a", "sw": "b"}}])
    assert [row.reason for row in read_pairs(ParallelSource(path=path), ["en", "de"])] == [Reason.EMPTY, Reason.LANGUAGE]


def test_instructions(tmp_path):
    rows = [{"instruction": "Do", "input": "it", "output": "done", "lang": "deu"}, {"instruction": "Do", "output": ""}]
    path = jsonl(tmp_path / "i.jsonl", rows)
    first, second = read_instructions(InstructionSource(path=path))
    assert first == Instruction("Do", "it", "done", "de", f"{path}:1")
    assert isinstance(second, Dropped)
    (only, _) = read_instructions(InstructionSource(path=path), ["sw"])
    assert only.reason == Reason.LANGUAGE
    source = InstructionSource(path=path, columns={"output": "answer"})
    with pytest.raises(UserError, match=r"i\.jsonl:1 has no `output`"):
        list(read_instructions(source))


def test_meanings(tmp_path):
    path = jsonl(tmp_path / "m.jsonl", [{"id": 3, "texts": {"eng_Latn": " a ", "de": "b", "fr": ""}}])
    (meaning,) = read_meanings(path)
    assert (meaning.id, meaning.texts) == ("3", {"en": "a", "de": "b"})
    with pytest.raises(UserError, match="holds no rows"):
        read_meanings(write(tmp_path / "empty.jsonl", "\n"))
    with pytest.raises(UserError, match=r"n\.jsonl:1 has no `texts`.*`text`"):
        read_meanings(jsonl(tmp_path / "n.jsonl", [{"text": "a"}]))


GOOD = {"src_lang": "en", "tgt_lang": "de", "src": "a", "tgt": "b"}


@pytest.mark.parametrize(
    ("name", "text", "source", "message"),
    [
        ("a.jsonl", json.dumps(GOOD) + "\n{oops\n", {}, r"a\.jsonl:2 is not JSON: .* column 2"),
        ("a.jsonl", "[1]\n", {}, r"a\.jsonl:1 is a JSON list"),
        ("a.jsonl", json.dumps(GOOD | {"src": 3}), {}, r"a\.jsonl:1: `src` is 3, not a text"),
        ("a.jsonl", json.dumps(GOOD | {"tgt_lang": "gerrman"}), {}, r"a\.jsonl:1: Unknown language code 'gerrman'.*`de`"),
        ("a.jsonl", '{"source": "a", "tgt": "b"}', {}, r"a\.jsonl:1 has no `src`, only source, tgt.*columns: {src: source}"),
        ("a.jsonl", '{"src": "a", "tgt": "b"}', {}, r"a\.jsonl:1 does not say its languages. Set src_lang"),
        ("a.jsonl", "{}", {"columns": {"scr": "x"}}, r"columns maps `scr`.*Did you mean {src: x}"),
        ("a.jsonl", "{}", {"src_lang": "english"}, r"a\.jsonl: Unknown language code 'english'. Did you mean `en`"),
        (
            "a.tsv",
            "src\ttgt\na\tb\nc\n",
            {"src_lang": "en", "tgt_lang": "de"},
            r"a\.tsv:3 has 1 cells and the file's first line 2",
        ),
        ("a.tsv", "src\ttgt\tsrc\na\tb\tc\n", {"src_lang": "en", "tgt_lang": "de"}, r"a\.tsv:1 names the column `src` twice"),
        ("a.jsonl.gz", None, {}, r"a\.jsonl\.gz is damaged or not gzip"),
        ("a.xyz", "", {}, r"a\.xyz: the name does not tell the format"),
        ("a.jsonl", "", {"format": "moses"}, "Set target_path"),
    ],
)
def test_mistakes_name_place_and_fix(tmp_path, name, text, source, message):
    path = tmp_path / name
    path.write_bytes(b"no gzip" if text is None else text.encode())
    with pytest.raises(UserError, match=message):
        list(read_pairs(ParallelSource(path=str(path), **source)))


@pytest.mark.parametrize(
    "line",
    [
        '{"src": ' + "[" * 100_000,
        '{"src": ' + "9" * 5000 + "}",
        json.dumps(GOOD | {"src_lang": ["en"]}),
        json.dumps(GOOD | {"src_lang": 3}),
    ],
    ids=["deep", "endless", "list", "number"],
)
def test_json_that_no_row_is_made_of_is_one_sentence(tmp_path, line):
    with pytest.raises(UserError, match=r"a\.jsonl:1"):
        list(read_pairs(ParallelSource(path=write(tmp_path / "a.jsonl", line))))


def test_missing_values_are_no_values(tmp_path):
    nan = float("nan")
    rows = [
        GOOD | {"src": nan},
        GOOD | {"src_lang": nan},
        GOOD | {"tgt_lang": ""},
        {"texts": None},
        {"texts": {"en": nan, "de": "b"}},
    ]
    read = list(read_pairs(ParallelSource(path=jsonl(tmp_path / "a.jsonl", rows), src_lang="sw", tgt_lang="fr")))
    assert [getattr(row, "reason", None) for row in read] == [Reason.EMPTY, None, None, Reason.EMPTY, Reason.EMPTY]
    assert [(row.src_lang, row.tgt_lang) for row in read[1:3]] == [("sw", "de"), ("en", "fr")]
    tasks = [{"instruction": "a", "input": nan, "output": "b", "lang": nan}, {"instruction": "a", "output": None}]
    first, second = read_instructions(InstructionSource(path=jsonl(tmp_path / "i.jsonl", tasks), lang="sw"))
    assert (first.input, first.lang, second.reason) == ("", "sw", Reason.EMPTY)


def test_a_language_under_two_codes_is_dropped_once(tmp_path):
    path = jsonl(tmp_path / "a.jsonl", [{"texts": {"en": "a", "de": "b", "deu_Latn": "c"}}])
    assert [getattr(row, "reason", None) for row in read_pairs(ParallelSource(path=path))] == [Reason.TWICE, None]


def test_bytes_that_are_not_utf8(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(json.dumps(GOOD).encode() + b'\n{"src": "caf\xe9"}\n')
    with pytest.raises(UserError, match=r"a\.jsonl:2 is not UTF-8 \(byte 0xe9 at 12\)"):
        list(read_pairs(ParallelSource(path=str(path))))


def test_a_truncated_gzip_file(tmp_path):
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress((json.dumps(GOOD) + "\n").encode() * 5000)[:-20])
    with pytest.raises(UserError, match="damaged"):
        list(read_pairs(ParallelSource(path=str(path))))


def test_missing_files_name_the_nearest(tmp_path):
    jsonl(tmp_path / "train.jsonl.gz", [])
    with pytest.raises(UserError, match=r"Did you mean .*train\.jsonl\.gz"):
        list(read_pairs(ParallelSource(path=str(tmp_path / "trian.jsonl.gz"))))
    with pytest.raises(UserError, match=r"folder .*nowhere does not exist"):
        list(read_pairs(ParallelSource(path=str(tmp_path / "nowhere" / "a.jsonl"))))
    with pytest.raises(UserError, match="format: hf"):
        list(read_pairs(ParallelSource(path="some/hub-name")))
    with pytest.raises(UserError, match="builtin:phrasebook"):
        list(read_pairs(ParallelSource(path="builtin:frasebook")))


@pytest.mark.parametrize(
    "path", ["n" * 5000 + ".jsonl", "~nobody/a.jsonl", "a\0.jsonl", "\ud83d.jsonl", "/proc/1/fd/a.jsonl", ""]
)
@pytest.mark.parametrize("reader", [read_meanings, lambda path: list(read_pairs(ParallelSource.model_construct(path=path)))])
def test_paths_that_cannot_be(path, reader):
    with pytest.raises(UserError):
        reader(path)


def test_a_data_set_that_breaks_while_it_is_read(tmp_path, monkeypatch):
    import datasets

    datasets.Dataset.from_dict({"src": ["a"], "tgt": ["b"]}).save_to_disk(tmp_path / "saved")

    def broken(self):
        raise OSError("gone")
        yield

    monkeypatch.setattr(datasets.Dataset, "__iter__", broken)
    with pytest.raises(UserError, match=r"around row 0: gone"):
        texts({"path": str(tmp_path / "saved"), "format": "hf"})


@pytest.mark.parametrize(("english", "german"), [(3, 5), (4, 2), (2, 3), (3, 2)])
def test_line_aligned_files_of_different_length(tmp_path, english, german):
    one = write(tmp_path / "t.en", "a\n" * english)
    two = write(tmp_path / "t.de", "b\n" * german)
    with pytest.raises(UserError, match=rf"t\.en has {english} lines and .*t\.de {german}"):
        list(read_pairs(ParallelSource(path=one, target_path=two)))


def test_line_aligned_files_must_say_their_languages(tmp_path):
    one, two = write(tmp_path / "source.txt", "a\n"), write(tmp_path / "target.txt", "b\n")
    with pytest.raises(UserError, match="Set src_lang"):
        list(read_pairs(ParallelSource(path=one, target_path=two)))
    rows = list(read_pairs(ParallelSource(path=one, target_path=two, src_lang="en", tgt_lang="sw")))
    assert rows == [Pair("en", "sw", "a", "b", None, f"{one}:1")]
