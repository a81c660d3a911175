"""The selection step by step, each counted by direction and shown by examples."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from alignx_fast.corpora.batches import EXAMPLES, SOURCE_BITS
from alignx_fast.corpora.engine import quoted
from alignx_fast.corpora.select import (
    DIRECTION,
    DUPLICATES_SQL,
    cap_sql,
    counts_for,
    load_sql,
    near_duplicates_sql,
    share_sql,
    without_pivot_sql,
)
from alignx_fast.corpora.settings import CorpusSettings
from alignx_fast.corpora.sources import Reading

if TYPE_CHECKING:
    from collections.abc import Sequence

    import duckdb

Counts = dict[str, int]
"""Rows by direction, or by reason."""


@dataclass
class Drop:
    """What one filter or step dropped."""

    reason: str
    by_direction: Counts = field(default_factory=dict)
    examples: list[dict[str, str]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows in all."""
        return sum(self.by_direction.values())


class Narrowing:
    """The table `kept`, made smaller step by step."""

    def __init__(self, engine: "duckdb.DuckDBPyConnection", parts: str) -> None:
        self.engine, self.parts = engine, parts
        self.drops: list[Drop] = []
        self.plan: list[str] = []
        self._run(load_sql(parts))
        self.counts = self._count("kept")

    def select(self, settings: CorpusSettings, readings: "Sequence[Reading]") -> None:
        """All steps that the settings ask for."""
        filters = settings.filters
        if filters.duplicates:
            self.step("duplicate", DUPLICATES_SQL)
        if filters.near_duplicates is not None:
            self.step("near duplicate", near_duplicates_sql(self.parts, filters.near_duplicates))
        limits = {number: reading.max_rows for number, reading in enumerate(readings) if reading.max_rows is not None}
        if limits:
            source = f"row >> {SOURCE_BITS}"
            cases = " ".join(f"WHEN {number} THEN {most}" for number, most in limits.items())
            self.step("beyond max_rows of its source", cap_sql(source, f"CASE {source} {cases} ELSE {1 << 62} END"))
        if settings.max_per_direction is not None:
            self.step("beyond max_per_direction", cap_sql(DIRECTION, str(settings.max_per_direction)))
        if settings.max_per_language is not None:
            self.step("beyond max_per_language", cap_sql(counts_for(self.engine), str(settings.max_per_language)))
        if settings.without_pivot is not None:
            self.step(
                "beyond the share without the pivot", without_pivot_sql(self.engine, settings.without_pivot, settings.pivot)
            )
        if settings.rows is not None:
            self.step("beyond the share of its language", share_sql(self.engine, settings.rows, settings))

    def step(self, reason: str, sql: str) -> None:
        """One step, and what it dropped."""
        self.engine.execute("ALTER TABLE kept RENAME TO before")
        self._run(sql)
        before, self.counts = self.counts, self._count("kept")
        lost = {direction: rows - self.counts.get(direction, 0) for direction, rows in before.items()}
        rows = self.engine.execute(
            f"SELECT row FROM before ANTI JOIN kept USING (row) ORDER BY draw, row LIMIT {EXAMPLES}"
        ).fetchall()
        self.drops.append(Drop(reason, {k: n for k, n in lost.items() if n}, self._examples([row for (row,) in rows])))
        self.engine.execute("DROP TABLE before")

    def filtered(self) -> list[Drop]:
        """What the filters dropped, most first."""
        sql = f"""SELECT reason || CASE WHEN reason = 'in test set' THEN ' ' || test_set ELSE '' END AS reason, {DIRECTION} AS direction,
            count(*), min_by({{'where': place, 'text': left(src || ' | ' || tgt, 400)}}, draw, {EXAMPLES})
            FROM read_parquet({quoted(self.parts)}) WHERE reason IS NOT NULL GROUP BY ALL ORDER BY ALL"""
        drops: dict[str, Drop] = {}
        for reason, direction, rows, examples in self.engine.execute(sql).fetchall():
            drop = drops.setdefault(reason, Drop(reason))
            drop.by_direction[direction] = rows
            drop.examples = [*drop.examples, *examples][:EXAMPLES]
        return sorted(drops.values(), key=lambda drop: -drop.rows)

    def read(self) -> Counts:
        """All rows that the filters saw, by direction."""
        sql = f"SELECT {DIRECTION} AS direction, count(*) FROM read_parquet({quoted(self.parts)}) GROUP BY ALL ORDER BY ALL"
        return dict(self.engine.execute(sql).fetchall())

    def _count(self, table: str) -> Counts:
        return dict(
            self.engine.execute(f"SELECT {DIRECTION} AS direction, count(*) FROM {table} GROUP BY ALL ORDER BY ALL").fetchall()
        )

    def _examples(self, rows: list[int]) -> list[dict[str, str]]:
        if not rows:
            return []
        sql = f"SELECT place, left(src || ' | ' || tgt, 400) FROM read_parquet({quoted(self.parts)}) WHERE row IN ({', '.join(map(str, rows))}) ORDER BY row"
        return [{"where": place, "text": text} for place, text in self.engine.execute(sql).fetchall()]

    def _run(self, sql: str) -> None:
        self.plan.append(sql)
        self.engine.execute(sql)
