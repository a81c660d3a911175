"""A batch of pairs cleaned: one SQL statement gives every row the first reason to drop it, or none."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from alignx_fast.corpora.engine import quoted
from alignx_fast.corpora.filters import filters, macros
from alignx_fast.corpora.identify import other_language
from alignx_fast.corpora.near import bands, digests
from alignx_fast.corpora.settings import CorpusFilters
from alignx_fast.corpora.testsets import TestSets

if TYPE_CHECKING:
    import duckdb


def clean_sql(settings: CorpusFilters) -> str:
    """The statement: all columns of `batch`, the test set that a side is in, and `reason`, which is null for a row that is kept."""
    cases = "\n".join(f"    WHEN {one.condition}\n      THEN {quoted(one.reason)}" for one in filters(settings))
    return f"""SELECT *,
  CASE
{cases}
  END AS reason
FROM (
  SELECT batch.*, coalesce(in_src.test_set, in_tgt.test_set, near_test_keys.test_set) AS test_set
  FROM batch
  LEFT JOIN test_keys AS in_src ON in_src.key = key_src
  LEFT JOIN test_keys AS in_tgt ON in_tgt.key = key_tgt
  LEFT JOIN near_test_keys ON near_test_keys.row = batch.row
)"""


def clean(engine: "duckdb.DuckDBPyConnection", batch: pa.Table, tests: TestSets, settings: CorpusFilters, part: Path) -> None:
    """Write the cleaned batch as Parquet."""
    languages = sorted({*pc.unique(batch["src_lang"]).to_pylist(), *pc.unique(batch["tgt_lang"]).to_pylist()})
    if settings.language_id is not None:
        batch = batch.append_column("is_other_language", other_language(batch, settings.language_id))
    if settings.near_duplicates is not None:
        batch = with_digests(batch)
    engine.register("batch", batch)
    engine.register("test_keys", tests.table())
    engine.register("near_test_keys", tests.near_rows(batch))
    for macro in macros(languages):
        engine.execute(macro)
    partial = part.with_suffix(".partial")
    engine.execute(
        f"COPY ({clean_sql(settings)} ORDER BY row) TO {quoted(partial)} (FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1)"
    )
    partial.rename(part)


def with_digests(batch: pa.Table) -> pa.Table:
    """The batch with the MinHash digest of every pair, its sides in the order of their languages, and the keys of its bands."""
    columns = [batch[name].to_pylist() for name in ("src_lang", "tgt_lang", "src", "tgt")]
    texts = [f"{b} {a}" if lang_b < lang_a else f"{a} {b}" for lang_a, lang_b, a, b in zip(*columns, strict=True)]
    found = digests(texts)
    return batch.append_column("digest", _lists(found)).append_column("bands", _lists(bands(found)))


def _lists(rows: np.ndarray) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
