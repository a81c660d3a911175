"""Readers on files of all kinds: what comes out is a usable row, a dropped one with its reason, or one sentence."""

import json
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow
import pyarrow.csv
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import fuzzing as fuzz

from alignx_fast.config import InstructionSource, ParallelSource
from alignx_fast.data.characters import is_broken
from alignx_fast.data.corpora import read_instructions, read_meanings, read_pairs
from alignx_fast.data.languages import check_language
from alignx_fast.data.rows import Dropped, DroppedRows, Instruction, Pair, Reason
from alignx_fast.errors import UserError
from alignx_fast.printing import OBEYED, one_line, printable

sides = st.sampled_from([None, None, "en", "de", "deu_Latn", "english", ""])
wanted = st.none() | st.just(["en", "de"])
columns = (
    st.just({})
    | st.just({})
    | st.dictionaries(
        st.sampled_from(["src", "tgt", "src_lang", "gid", "texts", "output", "scr"]),
        st.sampled_from(["1", "2", "9", "src", "tgt", "x"]),
        max_size=2,
    )
)


def write(folder, name, data):
    path = folder / name
    path.write_bytes(data)
    return str(path)


def check_rows(rows):
    """Every row is usable text, or dropped with a text that can be written."""
    count = 0
    for row in rows:
        count += 1
        assert isinstance(row, Pair | Instruction | Dropped)
        row.text.encode("utf-8")
        if not isinstance(row, Dropped):
            assert not is_broken(row.text)
        if isinstance(row, Pair):
            assert row.src == row.src.strip() != row.tgt == row.tgt.strip()
            assert row.src
            assert row.tgt
            assert check_language(row.src_lang) == row.src_lang
        if isinstance(row, Instruction):
            assert row.instruction
            assert row.output
    return count


def lines_with_text(data):
    return sum(bool(line.strip()) for line in data.decode("utf-8-sig").split("\n"))


@fuzz.fuzzed(0.27)
@given(fuzz.compressed(fuzz.jsonl_files(fuzz.pair_rows)), sides, sides, columns, wanted)
def test_pairs_of_json_lines(folder, file, src_lang, tgt_lang, columns, wanted):
    ending, data = file
    path = write(folder, f"pairs.jsonl{ending}", data)
    with suppress(UserError):
        count = check_rows(read_pairs(ParallelSource(path=path, src_lang=src_lang, tgt_lang=tgt_lang, columns=columns), wanted))
        assert ending or count >= lines_with_text(data), "a line with several languages gives several rows"


@fuzz.fuzzed(0.15)
@given(fuzz.compressed(fuzz.jsonl_files(fuzz.instruction_rows)), sides, columns, wanted)
def test_instructions(folder, file, lang, columns, wanted):
    ending, data = file
    path = write(folder, f"tasks.jsonl{ending}", data)
    with suppress(UserError):
        count = check_rows(read_instructions(InstructionSource(path=path, lang=lang, columns=columns), wanted))
        assert ending or count == lines_with_text(data)


@fuzz.fuzzed(0.12)
@given(fuzz.compressed(fuzz.jsonl_files(fuzz.meaning_rows)))
def test_evaluation_sentences(folder, file):
    ending, data = file
    path, dropped = write(folder, f"evaluation.jsonl{ending}", data), DroppedRows()
    with suppress(UserError):
        meanings = read_meanings(path, dropped)
        assert meanings
        for meaning in meanings:
            assert meaning.texts
            meaning.id.encode("utf-8")
            assert not any(is_broken(text) or not text.strip() for text in meaning.texts.values())
        if not ending:
            given = [
                value
                for line in data.decode("utf-8-sig").split("\n")
                if line.strip()
                for value in json.loads(line)["texts"].values()
            ]
            texts = [value for value in given if isinstance(value, str) and value.strip()]
            assert (
                len(texts) == sum(len(meaning.texts) for meaning in meanings) + len(dropped.listed) - dropped.counts[Reason.EMPTY]
            )


@st.composite
def tables(draw):
    names = draw(
        st.lists(st.sampled_from(["src", "tgt", "gid", "x"]), min_size=1, max_size=4, unique=draw(st.integers(0, 5)) > 0)
    )
    names = draw(st.sampled_from([["src", "tgt"], ["src", "tgt", "gid"], names]))
    rows = draw(st.lists(st.lists(fuzz.good_texts, min_size=len(names), max_size=len(names)), max_size=5))
    clean = draw(st.integers(0, 3)) > 0
    lines = ["\t".join(cell.replace("\t", " ").replace("\n", " ") if clean else cell for cell in row) for row in [names, *rows]]
    return draw(fuzz.damaged(fuzz.encoded("\n".join(lines))))


@fuzz.fuzzed(0.08)
@given(fuzz.compressed(tables()), sides, sides, columns, wanted)
def test_tab_separated_values(folder, file, src_lang, tgt_lang, columns, wanted):
    ending, data = file
    source = {"src_lang": src_lang, "tgt_lang": tgt_lang, "columns": columns}
    with suppress(UserError):
        check_rows(read_pairs(ParallelSource(path=write(folder, f"t.tsv{ending}", data), **source), wanted))


@fuzz.fuzzed(0.08)
@given(st.lists(st.tuples(fuzz.texts, fuzz.texts), max_size=6), st.booleans(), st.data(), sides, wanted)
def test_line_aligned_files(folder, pairs, clean, data, lang, wanted):
    sides = [[text.replace("\n", " ") if clean else text for text in side] for side in zip(*pairs, strict=True)] or [[], []]
    files = [data.draw(fuzz.damaged(fuzz.encoded("".join(f"{text}\n" for text in side)))) for side in sides]
    path, target = (write(folder, f"m.{code}", content) for code, content in zip(("en", "de"), files, strict=True))
    with suppress(UserError):
        count = check_rows(read_pairs(ParallelSource(path=path, target_path=target, src_lang=lang), wanted))
        assert count == files[0].count(b"\n") + (not files[0].endswith(b"\n") and bool(files[0]))


cells = st.text('ab é1,"', max_size=5) | st.sampled_from(["NA", "nan", "", "\x00", "1.5"])
table_rows = st.lists(st.fixed_dictionaries(dict.fromkeys(("src", "tgt", "src_lang", "gid"), cells)), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def own_cache(tmp_path_factory):
    """The library keeps what it reads, for other processes too."""
    import datasets

    before = datasets.config.HF_DATASETS_CACHE
    datasets.config.HF_DATASETS_CACHE = tmp_path_factory.mktemp("datasets")
    yield
    datasets.config.HF_DATASETS_CACHE = before


@fuzz.fuzzed(0.003)
@given(table_rows, st.sampled_from(["csv", "parquet"]), st.booleans(), st.data())
def test_data_sets_of_tables(own_cache, rows, kind, fixed, data):
    table, buffer = pyarrow.Table.from_pylist(rows), pyarrow.BufferOutputStream()
    (pyarrow.csv.write_csv if kind == "csv" else pyarrow.parquet.write_table)(table, buffer)
    content = data.draw(fuzz.damaged(buffer.getvalue().to_pybytes()))
    with TemporaryDirectory() as folder, suppress(UserError):
        (Path(folder) / f"rows.{kind}").write_bytes(content)
        source = ParallelSource(path=folder, format="hf", src_lang="en" if fixed else None, tgt_lang="de")
        count = check_rows(read_pairs(source))
        assert kind == "csv" or content != buffer.getvalue().to_pybytes() or count == len(rows)


@fuzz.fuzzed(0.03)
@given(fuzz.texts)
def test_what_is_printed_controls_nothing(text):
    assert not OBEYED.search(printable(text))
    printable(text).encode("utf-8")
    assert len(one_line(text).splitlines()) <= 1


@fuzz.fuzzed(0.03)
@given(fuzz.languages | fuzz.values.filter(lambda value: not isinstance(value, list | dict)))
def test_language_codes(code):
    with suppress(UserError):
        known = check_language(code)
        assert check_language(known) == known
