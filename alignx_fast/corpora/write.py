"""The chosen pairs written part by part as Arrow files, which training maps into memory."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.progress import track

from alignx_fast.corpora.engine import quoted

if TYPE_CHECKING:
    import duckdb

ROWS_PER_BATCH = 8192
BIN = 10
Lengths = dict[str, dict[str, int]]
"""Sentences of each language by length in characters, in bins named by where they begin."""


def write_sql(part: Path) -> str:
    """The chosen rows of a part, in random order."""
    sides = [
        f"CASE WHEN turned THEN {other} ELSE {own} END AS {own}"
        for own, other in (("src_lang", "tgt_lang"), ("tgt_lang", "src_lang"), ("src", "tgt"), ("tgt", "src"))
    ]
    return (
        f"SELECT place, {', '.join(sides)}, meaning\n"
        f"FROM read_parquet({quoted(part)}) AS part JOIN chosen USING (row)\n"
        "ORDER BY chosen.draw, chosen.row"
    )


def write_pairs(engine: "duckdb.DuckDBPyConnection", parts: Sequence[Path], folder: Path) -> Lengths:
    """An Arrow file for every part that has a chosen row; the lengths of their sentences."""
    folder.mkdir(parents=True)
    lengths: Lengths = {}
    for number, part in enumerate(track(parts, "Writing", console=Console(stderr=True), transient=True)):
        table: pa.Table = engine.sql(write_sql(part)).to_arrow_table()
        if not len(table):
            continue
        write_table(table, folder / f"{number:06d}.arrow")
        for side in ("src", "tgt"):
            _count_lengths(table[f"{side}_lang"], table[side], lengths)
    return lengths


def _count_lengths(languages: pa.ChunkedArray, texts: pa.ChunkedArray, lengths: Lengths) -> None:
    bins = pc.floor(pc.divide(pc.utf8_length(texts), BIN))
    counted = pa.table({"lang": languages, "bin": bins}).group_by(["lang", "bin"]).aggregate([([], "count_all")])
    for lang, at, rows in zip(*(counted[name].to_pylist() for name in ("lang", "bin", "count_all")), strict=True):
        own = lengths.setdefault(lang, {})
        own[str(int(at) * BIN)] = own.get(str(int(at) * BIN), 0) + rows


def write_table(table: pa.Table, file: Path) -> None:
    """An Arrow file under its name once it is whole."""
    partial = file.with_suffix(".partial")
    with pa.OSFile(str(partial), "wb") as stream, pa.ipc.new_file(stream, table.schema) as writer:
        writer.write_table(table, max_chunksize=ROWS_PER_BATCH)
    partial.rename(file)
