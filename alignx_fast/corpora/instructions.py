"""Instructions: duplicates and sentences of the test sets left out, written as Arrow files beside the pairs."""

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from alignx_fast.corpora.batches import ROWS_PER_PART, SOURCE_BITS, Unusable
from alignx_fast.corpora.engine import quoted
from alignx_fast.corpora.keys import draws, hashed, text_keys
from alignx_fast.corpora.narrow import Drop
from alignx_fast.corpora.sources import Reading
from alignx_fast.corpora.testsets import TestSets
from alignx_fast.corpora.write import write_table
from alignx_fast.data.dedupe import normalise
from alignx_fast.data.rows import Dropped, Instruction

if TYPE_CHECKING:
    import duckdb

REASON_SQL = """CASE
  WHEN task.test_set IS NOT NULL THEN 'instruction in test set ' || task.test_set
  WHEN firsts.row IS NULL THEN 'duplicate instruction' END"""


def read_instructions(
    reading: Reading, source: int, languages: frozenset[str] | None, seed: int, tests: TestSets, folder: Path, unusable: Unusable
) -> int:
    """Write a source's instructions as Parquet parts; how many there are."""
    import pyarrow.parquet as pq

    folder.mkdir(parents=True, exist_ok=True)
    first = source << SOURCE_BITS
    rows = _usable(reading, languages, unusable)
    for number in itertools.count():
        batch = list(itertools.islice(rows, ROWS_PER_PART))
        if not batch:
            return first - (source << SOURCE_BITS)
        pq.write_table(_table(batch, first, seed, tests), folder / f"{number:06d}.parquet")
        first += len(batch)
    raise AssertionError("count() never ends")


def write_instructions(engine: "duckdb.DuckDBPyConnection", parts: Sequence[Path], folder: Path) -> tuple[int, list[Drop]]:
    """Of equal tasks the first, without those that hold a sentence of a test set; rows kept, and what was dropped."""
    folder.mkdir(parents=True)
    files = "[" + ", ".join(quoted(part) for part in parts) + "]"
    engine.execute(f"CREATE TABLE tasks AS SELECT row, key, test_set FROM read_parquet({files})")
    engine.execute("CREATE TABLE firsts AS SELECT min(row) AS row FROM tasks WHERE test_set IS NULL GROUP BY key")
    kept = 0
    for number, part in enumerate(parts):
        table: pa.Table = engine.sql(
            f"SELECT place, instruction, input, output, lang, meaning FROM read_parquet({quoted(part)}) "
            "SEMI JOIN firsts USING (row) ORDER BY draw, row"
        ).to_arrow_table()
        if len(table):
            write_table(table, folder / f"{number:06d}.arrow")
        kept += len(table)
    drops = engine.execute(
        f"SELECT {REASON_SQL} AS reason, count(*) FROM tasks AS task LEFT JOIN firsts USING (row) GROUP BY reason HAVING reason IS NOT NULL ORDER BY reason"
    ).fetchall()
    return kept, [Drop(reason, {"": rows}) for reason, rows in drops]


def _usable(reading: Reading, languages: frozenset[str] | None, unusable: Unusable) -> Iterator[Instruction]:
    for row in reading.read_instructions(languages):
        if isinstance(row, Dropped):
            unusable.add(row)
        else:
            yield row


def _table(rows: list[Instruction], first: int, seed: int, tests: TestSets) -> pa.Table:
    keys = hashed("\0".join(map(normalise, (row.instruction, row.input, row.output))) for row in rows)
    groups = text_keys(row.group or f"{row.instruction}\0{row.input}" for row in rows)
    in_tests = [tests.of(text_keys([getattr(row, side) for row in rows])) for side in ("input", "output")]
    return pa.table(
        {
            "row": pa.array(np.arange(first, first + len(rows), dtype=np.int64)),
            "place": [row.where for row in rows],
            "instruction": [row.instruction for row in rows],
            "input": [row.input for row in rows],
            "output": [row.output for row in rows],
            "lang": pa.array([row.lang for row in rows], pa.string()),
            "meaning": groups.astype(np.int64),
            "key": keys,
            "draw": draws(keys, seed),
            "test_set": pa.array([a or b for a, b in zip(*in_tests, strict=True)], pa.string()),
        }
    )
