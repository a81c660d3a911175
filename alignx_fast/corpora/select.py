"""Which of the clean pairs are kept: SQL over narrow tables of keys, for which the engine uses the disk where memory is short.

Each step makes the table `kept` of the table `before`; at the end `chosen` holds what is kept, with its meaning.
"""

from typing import TYPE_CHECKING

from alignx_fast.corpora.engine import quoted
from alignx_fast.corpora.settings import CorpusSettings
from alignx_fast.corpora.shares import shares

if TYPE_CHECKING:
    import duckdb

KEYS = "row, src_lang, tgt_lang, key_src, key_tgt, key_group, pair, draw"
DIRECTION = "least(src_lang, tgt_lang) || '-' || greatest(src_lang, tgt_lang)"


def load_sql(parts: str) -> str:
    """`kept`: the rows of the parts that no filter drops."""
    return f"CREATE OR REPLACE TABLE kept AS\nSELECT {KEYS} FROM read_parquet({quoted(parts)}) WHERE reason IS NULL"


DUPLICATES_SQL = """CREATE TABLE kept AS
SELECT * FROM before
SEMI JOIN (SELECT min(row) AS row FROM before GROUP BY pair) AS firsts USING (row)"""
"""Of pairs that say the same in either direction, the first."""


def near_duplicates_sql(parts: str, similarity: float) -> str:
    """Of pairs that share a band of their digests and enough of these, the first."""
    return f"""CREATE TABLE kept AS
WITH digests AS (SELECT row, digest, bands FROM read_parquet({quoted(parts)}) SEMI JOIN before USING (row)),
     in_bands AS (SELECT row, unnest(bands) AS band FROM digests),
     firsts AS (SELECT band, min(row) AS first FROM in_bands WHERE band <> 0 GROUP BY band HAVING count(*) > 1),
     candidates AS (SELECT DISTINCT row, first FROM in_bands JOIN firsts USING (band) WHERE row <> first)
SELECT * FROM before ANTI JOIN (
  SELECT candidates.row FROM candidates
  JOIN digests AS a ON a.row = candidates.row JOIN digests AS b ON b.row = first
  WHERE len(list_filter(list_zip(a.digest, b.digest), lambda pair: pair[1] = pair[2])) >= {similarity} * len(a.digest)
) AS near USING (row)"""


LINK_PARTS = 16
"""Keys are looked through part by part, so that the engine's table of them fits its memory."""
NO_LINKS_SQL = "CREATE OR REPLACE TABLE links (row BIGINT, key UBIGINT)"


def links_sql(part: int) -> str:
    """Add to `links` what ties rows into one meaning: a text or a group that several have; of one part of all keys."""
    wanted = f"% {LINK_PARTS} = {part}"
    return f"""INSERT INTO links
WITH said AS (
  SELECT row, key_src AS key FROM kept WHERE key_src {wanted}
  UNION ALL SELECT row, key_tgt FROM kept WHERE key_tgt {wanted}
  UNION ALL SELECT row, key_group FROM kept WHERE key_group {wanted}
)
SELECT row, key FROM said
SEMI JOIN (SELECT key FROM said GROUP BY key HAVING count(*) > 1) AS shared USING (key)"""


FIRST_LABELS_SQL = "CREATE OR REPLACE TABLE labels AS\nSELECT row, row AS label FROM links GROUP BY row"

HOOKS_SQL = """CREATE OR REPLACE TABLE hooks AS
WITH by_key AS (SELECT key, min(label) AS low FROM links JOIN labels USING (row) GROUP BY key),
     by_row AS (SELECT row, min(low) AS low FROM links JOIN by_key USING (key) GROUP BY row)
SELECT label, min(low) AS low FROM by_row JOIN labels USING (row) GROUP BY label"""
"""For every label the smallest that any of its rows is tied to."""

JUMP_SQL = """CREATE OR REPLACE TABLE next_hooks AS
SELECT hooks.label, further.low, further.low < hooks.low AS changed
FROM hooks JOIN hooks AS further ON further.label = hooks.low"""
"""From there to the smallest that that one is tied to: chains are halved each time."""

NEXT_LABELS_SQL = """CREATE OR REPLACE TABLE next_labels AS
SELECT row, low AS label FROM labels JOIN hooks USING (label)"""

MEANINGS_SQL = (
    NO_LINKS_SQL,
    f"-- The same for the other parts, up to {LINK_PARTS - 1}.\n{links_sql(0)}",
    FIRST_LABELS_SQL,
    f"-- The next three again until no label changes, the second of them until no hook changes.\n{HOOKS_SQL}",
    JUMP_SQL,
    NEXT_LABELS_SQL,
)
"""How rows that say the same thing get one label."""


def find_meanings(engine: "duckdb.DuckDBPyConnection") -> int:
    """Give rows that are tied by a chain of texts and groups one label; how many rounds that took."""
    engine.execute(NO_LINKS_SQL)
    for part in range(LINK_PARTS):
        engine.execute(links_sql(part))
    engine.execute(FIRST_LABELS_SQL)
    rounds = 1
    while _hook(engine):
        rounds += 1
        engine.execute(NEXT_LABELS_SQL)
        engine.execute("DROP TABLE labels")
        engine.execute("ALTER TABLE next_labels RENAME TO labels")
    engine.execute("DROP TABLE links")
    return rounds


def _hook(engine: "duckdb.DuckDBPyConnection") -> bool:
    """Make `hooks` and follow them to their ends; whether any label changes."""
    engine.execute(HOOKS_SQL)
    if not _one(engine, "SELECT count(*) FROM hooks WHERE low < label"):
        return False
    changed = True
    while changed:
        engine.execute(JUMP_SQL)
        changed = _one(engine, "SELECT count(*) FROM next_hooks WHERE changed") > 0
        engine.execute("DROP TABLE hooks")
        engine.execute("ALTER TABLE next_hooks RENAME TO hooks")
    return True


def cap_sql(group: str, most: str) -> str:
    """Of each group the first rows of a random order, `most` at most."""
    return f"""CREATE TABLE kept AS
SELECT * EXCLUDE place_in_group FROM (
  SELECT *, row_number() OVER (PARTITION BY {group} ORDER BY draw, row) AS place_in_group FROM before
)
WHERE place_in_group <= {most}"""


def counts_for(engine: "duckdb.DuckDBPyConnection") -> str:
    """SQL for the language that a pair of `kept` counts for: the rarer of its two."""
    order = engine.execute(
        "SELECT lang FROM (SELECT src_lang AS lang FROM kept UNION ALL SELECT tgt_lang FROM kept) GROUP BY lang ORDER BY count(*), lang"
    ).fetchall()
    ranks = "[" + ", ".join(quoted(lang) for (lang,) in order) + "]"
    return f"CASE WHEN list_position({ranks}, src_lang) <= list_position({ranks}, tgt_lang) THEN src_lang ELSE tgt_lang END"


def share_sql(engine: "duckdb.DuckDBPyConnection", rows: int, settings: CorpusSettings) -> str:
    """`rows` rows, shared out over languages and directions by their temperatures."""
    sizes = engine.execute(
        f"SELECT {counts_for(engine)} AS language, {DIRECTION} AS direction, count(*) FROM kept GROUP BY ALL ORDER BY ALL"
    ).fetchall()
    wanted = shares(
        {(language, direction): count for language, direction, count in sizes},
        rows,
        settings.language_temperature,
        settings.direction_temperature,
    )
    cases = " ".join(f"WHEN {quoted(direction)} THEN {count}" for (_, direction), count in wanted.items())
    return cap_sql(DIRECTION, f"CASE {DIRECTION} {cases} END")


def without_pivot_sql(engine: "duckdb.DuckDBPyConnection", share: float, pivot: str) -> str:
    """All pairs with the pivot, and so many without it that these make up `share` of the whole."""
    has_pivot = f"(src_lang = {quoted(pivot)} OR tgt_lang = {quoted(pivot)})"
    with_pivot = _one(engine, f"SELECT count(*) FROM kept WHERE {has_pivot}")
    most = with_pivot * share / (1 - share) if share < 1 else 1 << 62
    return cap_sql(has_pivot, f"CASE WHEN {has_pivot} THEN {1 << 62} ELSE {int(most)} END")


def choose_sql(settings: CorpusSettings) -> str:
    """`chosen`: what is kept, in the order of the parts, with its meaning and whether its sides change places."""
    turned = "FALSE"
    if settings.to_pivot is not None:
        pivot = quoted(settings.pivot)
        leads_there = f"(draw % 1000003 < {settings.to_pivot} * 1000003)"
        turned = f"(src_lang = {pivot} OR tgt_lang = {pivot}) AND (tgt_lang = {pivot}) <> {leads_there}"
    return f"""CREATE OR REPLACE TABLE chosen AS
SELECT kept.row, draw, coalesce(label, kept.row) AS meaning, {turned} AS turned
FROM kept LEFT JOIN labels USING (row)
ORDER BY kept.row"""


def _one(engine: "duckdb.DuckDBPyConnection", sql: str) -> int:
    row = engine.execute(sql).fetchone()
    return int(row[0]) if row else 0
