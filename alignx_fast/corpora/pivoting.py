"""Pairs without the pivot, made of pairs that share their pivot side."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignx_fast.corpora.engine import quoted
from alignx_fast.data.rows import Pair

if TYPE_CHECKING:
    import duckdb

ROWS_PER_BATCH = 8192


def pivoting_sql(parts: Sequence[Path], pivot: str) -> str:
    """A ring through the languages that a pivot sentence is translated into: every sentence is used twice, or once where there are two."""
    files, pivot = "[" + ", ".join(quoted(part) for part in parts) + "]", quoted(pivot)
    return f"""WITH legs AS (
  SELECT row, draw, place, key_src AS through, tgt_lang AS lang, tgt AS text, key_tgt AS key
  FROM read_parquet({files}) WHERE reason IS NULL AND src_lang = {pivot} AND tgt_lang <> {pivot}
  UNION ALL
  SELECT row, draw, place, key_tgt, src_lang, src, key_src
  FROM read_parquet({files}) WHERE reason IS NULL AND tgt_lang = {pivot} AND src_lang <> {pivot}
), spoken AS (  -- one sentence of each language
  SELECT * FROM legs QUALIFY row_number() OVER (PARTITION BY through, lang ORDER BY draw, row) = 1
), ring AS (
  SELECT place, lang, text, through, key, count(*) OVER (PARTITION BY through) AS size,
    lead(lang) OVER around AS next_lang, lead(text) OVER around AS next_text,
    first_value(lang) OVER around AS first_lang, first_value(text) OVER around AS first_text
  FROM spoken WINDOW around AS (PARTITION BY through ORDER BY draw, row)
)
SELECT lang, coalesce(next_lang, first_lang), text, coalesce(next_text, first_text), place
FROM ring WHERE next_lang IS NOT NULL OR size > 2
ORDER BY through, key"""


def pivoted(engine: "duckdb.DuckDBPyConnection", parts: Sequence[Path], pivot: str) -> Iterator[Pair]:
    """The pairs, in an order that depends on texts alone."""
    found = engine.execute(pivoting_sql(parts, pivot))
    while rows := found.fetchmany(ROWS_PER_BATCH):
        for lang, other_lang, text, other, place in rows:
            yield Pair(lang, other_lang, text, other, None, place)
