"""All rows of a stage: its sources read, cleaned, split (split.py) and composed (compose.py)."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from alignx_fast.config import Settings
from alignx_fast.data.compose import compose_instruct, compose_pairs
from alignx_fast.data.corpora import read_instructions, read_meanings, read_pairs
from alignx_fast.data.dedupe import Mask, first_of_each, normalise
from alignx_fast.data.keyed import (
    INSTRUCTION_WIDTH,
    PAIR_WIDTH,
    Collected,
    KeyedInstructions,
    KeyedPairs,
    Row,
    instruction_columns,
    pair_columns,
)
from alignx_fast.data.languages import check_language
from alignx_fast.data.phrasebook import PHRASEBOOK, load_phrasebook
from alignx_fast.data.rows import Dropped, DroppedRows, Instruction, Meaning, Pair, Reason
from alignx_fast.data.split import split_instructions, split_pairs
from alignx_fast.data.stored import Rows, Store
from alignx_fast.data.templates import WORDINGS, Template
from alignx_fast.errors import UserError
from alignx_fast.stages import Stage


@dataclass
class Gathered:
    """Rows before tokenisation."""

    train: Rows[Pair | Instruction]
    dev: Rows[Pair | Instruction]
    evaluation: list[Meaning]
    dropped: DroppedRows
    rows_read: int
    rows_reversed: int
    """Rows that were made of a pair by turning it round: rows_read + rows_reversed = train + dev + dropped."""
    evaluation_dropped: DroppedRows
    """Texts of the evaluation file that are not used."""


def gather(settings: Settings, stage: Stage, folder: Path | None = None) -> Gathered:
    """Read all sources of `stage`.

    Args:
        folder: where a file without a name holds the texts while they are used; by default the system's temporary folder.

    Raises:
        UserError: a source cannot be read, or no usable row is left.
    """
    data = settings.data
    languages = None if data.languages is None else {check_language(code) for code in data.languages}
    held_out = _phrasebook_held_out(settings, languages)
    evaluation_dropped = DroppedRows()
    evaluation = held_out if data.evaluation is None else read_meanings(data.evaluation, evaluation_dropped)
    reserved = {normalise(text) for meaning in [*held_out, *evaluation] for text in meaning.texts.values()}

    sources = _Sources(settings, languages, reserved, Store(folder))
    pairs = split_pairs(sources.pairs(), held_out, settings)
    if data.evaluation is None:
        evaluation = [*held_out, *pairs.dev_sentences]
    sources.rows_read += pairs.n_held_out
    sources.dropped.count(Reason.RESERVED, pairs.n_reserved)
    sources.drop_held_out(pairs.about_held_out)
    if stage == "align":
        rows = compose_pairs(pairs, settings)
    else:
        instructions = split_instructions(sources.instructions(), pairs, settings)
        sources.drop_held_out(instructions.about_held_out)
        rows = compose_instruct(pairs, instructions, settings)
    sources.dropped.count(Reason.SHARE, rows.n_unneeded)
    if not len(rows.train):
        raise UserError(_nothing_usable(stage, sources))
    return Gathered(rows.train, rows.dev, evaluation, sources.dropped, sources.rows_read, rows.n_reversed, evaluation_dropped)


def training_texts(settings: Settings) -> Iterator[str]:
    """Every row that the first stage trains on, held-out ones excluded, in the layout that the model will read: what a new tokenizer
    is trained on."""
    template = Template.alpaca()
    for number, row in enumerate(gather(settings, settings.stages[0]).train.rows):
        rendered = (
            template.render_pair(row, number % len(WORDINGS)) if isinstance(row, Pair) else template.render_instruction(row)
        )
        yield rendered.text


def sentences_trained_on(settings: Settings) -> Iterator[str]:
    """Every sentence, input and answer that any stage trains on."""
    for stage in settings.stages:
        for row in gather(settings, stage).train.rows:
            yield from (row.src, row.tgt) if isinstance(row, Pair) else (row.input, row.output)


def held_out_instructions(settings: Settings) -> list[Instruction]:
    """The general instructions that stage 2 holds out; none where there is no such stage."""
    if "instruct" not in settings.stages:
        return []
    return [row for row in gather(settings, "instruct").dev.rows if isinstance(row, Instruction)]


class _Sources:
    """The sources of a stage; reading them counts their rows and collects those that cannot be used."""

    def __init__(self, settings: Settings, languages: set[str] | None, reserved: set[str], store: Store) -> None:
        self.settings, self.languages, self.store = settings, languages, store
        self.reserved = reserved  # normalised texts of the evaluation: a row with one of them is not used
        self.dropped = DroppedRows()
        self.rows_read = 0

    def pairs(self) -> KeyedPairs:
        """Pairs of all sources, without duplicates and without anything that the evaluation uses."""
        rows = Collected(self.store, pair_columns, PAIR_WIDTH, self.reserved)
        sources = self.settings.data.parallel
        kept = self._read(rows, ((read_pairs(source, self.languages), source.max_rows) for source in sources), first_seed=0)
        table = rows.table[kept]
        return KeyedPairs(self.store, rows.numbers[kept], table[:, 3:], table[:, 2].astype(bool))

    def instructions(self) -> KeyedInstructions:
        """Instructions of all sources, cleaned in the same way."""
        rows = Collected(self.store, instruction_columns, INSTRUCTION_WIDTH, self.reserved)
        sources = self.settings.data.instructions
        read = ((read_instructions(source, self.languages), source.max_rows) for source in sources)
        kept = self._read(rows, read, first_seed=1000)
        table = rows.table[kept]
        return KeyedInstructions(self.store, rows.numbers[kept], table[:, 2:5], table[:, 5:9], table[:, 9])

    def _read(
        self, rows: Collected[Row], sources: Iterable[tuple[Iterable[Row | Dropped], int | None]], *, first_seed: int
    ) -> Mask:
        """Read sources into `rows`; says which rows are used, and lists the others after those that their source could not give."""
        ends, unreadable = [0], []
        for number, (source, max_rows) in enumerate(sources):
            unreadable.append(self._sample(source, rows, max_rows, (self.settings.seed, first_seed + number)))
            ends.append(len(rows))
        numbers, in_evaluation = rows.numbers, rows.table[:, 1].astype(bool)
        kept = ~in_evaluation
        kept[kept] = first_of_each(rows.table[kept, 0])
        for (begin, end), dropped in zip(pairwise(ends), unreadable, strict=True):
            self.dropped.extend(dropped)
            for at in begin + np.flatnonzero(~kept[begin:end]):
                self.drop(Reason.EVALUATION if in_evaluation[at] else Reason.DUPLICATE, self.store[numbers[at]])
        return kept

    def _sample(
        self, source: Iterable[Row | Dropped], rows: Collected[Row], max_rows: int | None, seed: tuple[int, int]
    ) -> DroppedRows:
        """Add the usable rows, at most `max_rows` of them drawn at random (reservoir sampling: one pass); returns the others."""
        dropped = DroppedRows()
        rng = np.random.default_rng(seed)
        n_usable, first = 0, len(rows)
        for row in source:
            self.rows_read += 1
            if isinstance(row, Dropped):
                dropped.add(row)
                continue
            n_usable += 1
            if max_rows is None or len(rows) - first < max_rows:
                rows.put(len(rows), row)
            elif (at := int(rng.integers(n_usable))) < max_rows:
                rows.put(first + at, row)
        dropped.count(Reason.MAX_ROWS, n_usable - (len(rows) - first))
        return dropped

    def drop(self, reason: Reason, row: Pair | Instruction) -> None:
        """Leave out a row that is usable in itself."""
        self.dropped.add(Dropped(reason, row.text, row.where))

    def drop_held_out(self, rows: Iterable[Pair | Instruction]) -> None:
        """Leave out rows that say what is held out."""
        for row in rows:
            self.drop(Reason.HELD_OUT, row)


def _phrasebook_held_out(settings: Settings, languages: set[str] | None) -> list[Meaning]:
    if all(source.path != PHRASEBOOK for source in settings.data.parallel):
        return []
    held_out = load_phrasebook().held_out
    if languages is None:
        return held_out
    return [Meaning(row.id, {lang: text for lang, text in row.texts.items() if lang in languages}) for row in held_out]


def _nothing_usable(stage: Stage, sources: _Sources) -> str:
    reasons = ", ".join(f"{n} {reason}" for reason, n in sources.dropped.by_reason().items())
    return (
        f"No usable row for stage {stage}: {sources.rows_read} rows read, {reasons or 'none dropped'}. "
        f"Check data.{'parallel' if stage == 'align' else 'instructions'} and data.languages."
    )
