"""Sources as the settings name them: what is read of each, from which files, under which licence."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from alignx_fast.config import InstructionSource, ParallelSource
from alignx_fast.corpora.settings import CorpusSource
from alignx_fast.data.corpora import read_instructions, read_pairs
from alignx_fast.data.lines import Record, jsonl_records
from alignx_fast.data.rows import Dropped, Instruction, Pair
from alignx_fast.errors import UserError


@dataclass(frozen=True)
class Reading:
    """One file, or several that are read together."""

    title: str
    files: list[Path] = field(default_factory=list)
    """What is read, for estimates and to notice changes; empty for a dataset of the hub."""
    pairs: ParallelSource | None = None
    instructions: InstructionSource | None = None
    records: Callable[[], Iterator[Record]] | None = None
    """In place of the source's own."""
    licence: str = "not stated"
    max_rows: int | None = None

    def read_pairs(self, languages: frozenset[str] | None) -> Iterator[Pair | Dropped]:
        """The pairs; none where the source holds instructions."""
        if self.pairs is not None:
            yield from read_pairs(self.pairs, languages, self.records and self.records())

    def read_instructions(self, languages: frozenset[str] | None) -> Iterator[Instruction | Dropped]:
        """The instructions; none where the source holds pairs."""
        if self.instructions is not None:
            yield from read_instructions(self.instructions, languages, self.records and self.records())


def own_files(source: CorpusSource) -> list[Reading]:
    """The readings of a source that names a file of one's own.

    Raises:
        UserError: it names none.
    """
    if source.path is None:
        raise UserError("A source of `corpus` has neither a path nor the layout of a published data set. Set path or layout.")
    parallel = ParallelSource(
        path=source.path,
        target_path=source.target_path,
        format=cast(Literal["auto"], source.layout),
        src_lang=source.src_lang,
        tgt_lang=source.tgt_lang,
        columns=source.columns,
        subset=source.subset,
        split=source.split,
    )
    files = [Path(path) for path in (source.path, source.target_path) if path is not None and Path(path).is_file()]
    return [Reading(source.path, files, parallel, licence=source.licence or "not stated", max_rows=source.max_rows)]


def sentences(reading: Reading) -> Iterator[str]:
    """Every sentence of a test set: the sides of its pairs, or the texts of its meanings, be there one or many."""
    records: Iterator[Record] | None = reading.records() if reading.records else None
    if records is None and reading.pairs and reading.pairs.format in ("auto", "jsonl") and _holds_meanings(reading.pairs.path):
        records = jsonl_records(reading.pairs.path)
    if records is None:
        for row in reading.read_pairs(None):
            if isinstance(row, Pair):
                yield from (row.src, row.tgt)
        for task in reading.read_instructions(None):
            if isinstance(task, Instruction):
                yield from filter(None, (task.input, task.output))
        return
    for _, record in records:
        texts = record.get("texts", record)
        yield from (text for text in cast(dict[str, object], texts).values() if isinstance(text, str) and text.strip())


def _holds_meanings(path: str) -> bool:
    if not Path(path).is_file() or ".jsonl" not in Path(path).name:
        return False
    first = next(jsonl_records(path), None)
    return first is not None and isinstance(first[1].get("texts"), dict)
