"""Formats and compressions that readers take, and files that are damaged or of another encoding."""

import bz2
import gzip
import lzma
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignx_fast.config import ParallelSource
from alignx_fast.data import lines as lines_module
from alignx_fast.data.corpora import read_pairs
from alignx_fast.data.rows import Pair
from alignx_fast.errors import UserError

TSV = 'src\ttgt\nGood day.\tGuten Tag.\nÜber "all"\tOver all\n'
CSV = 'src,tgt\nGood day.,Guten Tag.\n"Über ""all""",Over all\n'
TMX = """<?xml version="1.0" encoding="UTF-8"?>
<tmx version="1.4"><header/><body>
<tu><tuv xml:lang="EN"><seg>Good day.</seg></tuv><tuv xml:lang="de"><seg>Guten <hi>Tag</hi>.<ph>code</ph></seg></tuv></tu>
<tu><tuv xml:lang="en"><seg>Über "all"</seg></tuv><tuv xml:lang="de"><seg>Over all</seg></tuv></tu>
</body></tmx>
"""


def pairs(path: Path, **source: object) -> list[Pair]:
    rows = list(read_pairs(ParallelSource.model_validate({"path": str(path), "src_lang": "en", "tgt_lang": "de", **source})))
    assert all(isinstance(row, Pair) for row in rows)
    return [row for row in rows if isinstance(row, Pair)]


def compressed(path: Path, text: str) -> Path:
    raw = text.encode()
    if path.suffix == ".zst":
        with pa.CompressedOutputStream(pa.OSFile(str(path), "wb"), "zstd") as stream:
            stream.write(raw)
    else:
        pack = {".gz": gzip.compress, ".xz": lzma.compress, ".bz2": bz2.compress}.get(path.suffix, lambda data: data)
        path.write_bytes(pack(raw))
    return path


@pytest.mark.parametrize("ending", ["", ".gz", ".xz", ".zst", ".bz2"])
@pytest.mark.parametrize(("name", "text"), [("a.tsv", TSV), ("a.csv", CSV), ("a.csv", CSV.replace(",", ";")), ("a.tmx", TMX)])
def test_formats_and_compressions(tmp_path: Path, name: str, text: str, ending: str) -> None:
    found = pairs(compressed(tmp_path / f"{name}{ending}", text))
    assert [(row.src_lang, row.tgt_lang, row.src, row.tgt) for row in found] == [
        ("en", "de", "Good day.", "Guten Tag."),
        ("en", "de", 'Über "all"', "Over all"),
    ]


def test_parquet_and_line_aligned_files(tmp_path: Path) -> None:
    pq.write_table(pa.table({"english": ["Good day."], "german": ["Guten Tag."]}), tmp_path / "a.parquet")
    columns = {"src": "english", "tgt": "german"}
    assert pairs(tmp_path / "a.parquet", columns=columns) == [
        Pair("en", "de", "Good day.", "Guten Tag.", None, f"{tmp_path}/a.parquet:1")
    ]
    english, german = compressed(tmp_path / "t.en.xz", "Good day.\n"), compressed(tmp_path / "t.de.zst", "Guten Tag.\n")
    (row,) = pairs(english, target_path=str(german), src_lang=None, tgt_lang=None)
    assert (row.src_lang, row.tgt_lang, row.tgt) == ("en", "de", "Guten Tag.")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32", "utf-16-le-bom"])
def test_encodings_with_a_mark_are_read(tmp_path: Path, encoding: str) -> None:
    raw = b"\xff\xfe" + TSV.encode("utf-16-le") if encoding == "utf-16-le-bom" else TSV.encode(encoding)
    (tmp_path / "a.tsv").write_bytes(raw)
    assert [row.src for row in pairs(tmp_path / "a.tsv")] == ["Good day.", 'Über "all"']


def test_other_encodings_are_refused_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_bytes(TSV.encode("latin-1"))
    with pytest.raises(UserError, match=r"a.tsv:3 is not UTF-8 \(byte 0xdc at 0\). Convert the file with iconv."):
        pairs(tmp_path / "a.tsv")
    (tmp_path / "b.tsv").write_bytes(TSV.encode() + "naïve\tnaiv\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"b.tsv:4 is not UTF-8"):
        pairs(tmp_path / "b.tsv")


@pytest.mark.parametrize("ending", [".gz", ".xz", ".zst", ".bz2"])
def test_a_compressed_file_that_was_cut_is_refused(tmp_path: Path, ending: str) -> None:
    import random

    text = "src\ttgt\n" + "".join(f"{random.Random(i).random()}\t{i}\n" for i in range(5000))
    path = compressed(tmp_path / f"a.tsv{ending}", text)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match=r"is damaged or not \w+ data \(after line \d+\). Fetch or compress it again."):
        pairs(path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "src,tgt\nA, b,c\n", r"a.csv:2 has 3 cells and the file's first line 2. Put quotes around"),
        ("a.csv", 'src,tgt\nA,"b\nC,d\n', r"a.csv:\d is not CSV"),
        ("a.tmx", TMX.replace("</body></tmx>", ""), r"is not TMX: no element found.*after 2 units"),
        ("a.parquet", "no parquet", "Cannot read .* as Parquet"),
    ],
)
def test_damaged_files_are_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=message):
        pairs(tmp_path / name)


def test_a_column_that_changes_its_type_is_refused_with_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"src": "A", "tgt": "B"}\n{"src": 3, "tgt": "C"}\n')
    with pytest.raises(UserError, match=r"a.jsonl:2: `src` is 3, not a text"):
        pairs(tmp_path / "a.jsonl")


def test_a_file_without_lines_is_refused_and_long_lines_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tsv").write_text("src\ttgt\n" + "a" * 10_000_000 + "\tb\n")
    assert len(pairs(tmp_path / "a.tsv")[0].src) == 10_000_000
    monkeypatch.setattr(lines_module, "LONGEST_LINE", 1 << 20)
    with pytest.raises(UserError, match=r"a.tsv:2 is longer than 1 MB. Give one row on each line"):
        pairs(tmp_path / "a.tsv")
