"""All rows of a stage, read, cleaned and split into train and dev so that nothing said in one is said in the other.

The split goes by whole meanings: rows joined by a chain of shared texts or groups (see dedupe.py) stay together. It depends on
`data.parallel`, `data.dev_pairs` and `seed` alone, so both stages hold out the same sentences.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np

from alignx_fast.config import Settings
from alignx_fast.data.corpora import read_instructions, read_meanings, read_pairs, ring
from alignx_fast.data.dedupe import components, instruction_keys, normalise, pair_keys, task_keys
from alignx_fast.data.languages import check_language
from alignx_fast.data.phrasebook import PHRASEBOOK, load_phrasebook
from alignx_fast.data.rows import Dropped, Instruction, Meaning, Pair, Reason
from alignx_fast.data.templates import WORDINGS, Template
from alignx_fast.errors import UserError
from alignx_fast.stages import Stage

Row = TypeVar("Row", Pair, Instruction)


@dataclass
class Gathered:
    """Rows before tokenisation. `train_meanings[i]` is the meaning of `train[i]`; the same for dev."""

    train: list[Pair | Instruction] = field(default_factory=list)
    dev: list[Pair | Instruction] = field(default_factory=list)
    train_meanings: list[int] = field(default_factory=list)
    dev_meanings: list[int] = field(default_factory=list)
    evaluation: list[Meaning] = field(default_factory=list)
    dropped: list[Dropped] = field(default_factory=list)
    rows_read: int = 0


def gather(settings: Settings, stage: Stage) -> Gathered:
    """Read all sources of `stage`.

    Raises:
        UserError: a source cannot be read, or no usable row is left.
    """
    data = settings.data
    languages = None if data.languages is None else {check_language(code) for code in data.languages}
    found = Gathered()
    held_out = _phrasebook_held_out(settings, languages)
    found.evaluation = held_out if data.evaluation is None else read_meanings(data.evaluation)
    reserved = {normalise(text) for meaning in [*held_out, *found.evaluation] for text in meaning.texts.values()}

    split = _split_pairs(_pairs(settings, languages, reserved, found), held_out, settings)
    if data.evaluation is None:
        found.evaluation = [*held_out, *_dev_meanings(split)]
    if stage == "align":
        _add_pairs(found, split, settings, n_train=None, n_dev=None)
    else:
        _add_instruct(found, split, _instructions(settings, languages, reserved, found), settings)
    if not found.train:
        reasons = ", ".join(f"{n} {reason}" for reason, n in Counter(row.reason for row in found.dropped).most_common())
        raise UserError(
            f"No usable row for stage {stage}: {found.rows_read} rows read, {reasons or 'none dropped'}. "
            f"Check data.{'parallel' if stage == 'align' else 'instructions'} and data.languages."
        )
    return found


def training_texts(settings: Settings) -> Iterator[str]:
    """Every row that the first stage trains on, held-out ones excluded, in the layout that the model will read: what a new tokenizer
    is trained on."""
    template = Template.alpaca()
    for number, row in enumerate(gather(settings, settings.stages[0]).train):
        rendered = (
            template.render_pair(row, number % len(WORDINGS)) if isinstance(row, Pair) else template.render_instruction(row)
        )
        yield rendered.text


@dataclass
class _Split:
    """Pairs in one direction each; meanings in step with them."""

    train: list[Pair]
    dev: list[Pair]
    train_meanings: np.ndarray
    dev_meanings: np.ndarray
    own_dev: list[bool]
    """Whether a dev pair comes from the user's sources rather than from the phrasebook's held-out meanings."""
    n_meanings: int


def _pairs(settings: Settings, languages: set[str] | None, reserved: set[str], found: Gathered) -> list[Pair]:
    """Pairs of all sources, without duplicates and without anything that the evaluation uses."""
    kept: list[Pair] = []
    seen: set[frozenset] = set()
    for number, source in enumerate(settings.data.parallel):
        for pair in _usable(read_pairs(source, languages), source.max_rows, (settings.seed, number), found):
            src, tgt = normalise(pair.src), normalise(pair.tgt)
            identity = frozenset(((pair.src_lang, src), (pair.tgt_lang, tgt)))
            if src in reserved or tgt in reserved:
                found.dropped.append(Dropped(Reason.EVALUATION, f"{pair.src} | {pair.tgt}", pair.where))
            elif identity in seen:
                found.dropped.append(Dropped(Reason.DUPLICATE, f"{pair.src} | {pair.tgt}", pair.where))
            else:
                seen.add(identity)
                kept.append(pair)
    return kept


def _instructions(settings: Settings, languages: set[str] | None, reserved: set[str], found: Gathered) -> list[Instruction]:
    kept: list[Instruction] = []
    seen: set[tuple[str, str, str]] = set()
    for number, source in enumerate(settings.data.instructions):
        for row in _usable(read_instructions(source, languages), source.max_rows, (settings.seed, 1000 + number), found):
            identity = (normalise(row.instruction), normalise(row.input), normalise(row.output))
            if not reserved.isdisjoint(identity[1:]):
                found.dropped.append(Dropped(Reason.EVALUATION, f"{row.input} | {row.output}", row.where))
            elif identity in seen:
                found.dropped.append(Dropped(Reason.DUPLICATE, f"{row.instruction} | {row.input}", row.where))
            else:
                seen.add(identity)
                kept.append(row)
    return kept


def _usable(rows: Iterable[Row | Dropped], max_rows: int | None, seed: tuple[int, int], found: Gathered) -> list[Row]:
    """Rows that can be used, at most `max_rows` of them drawn at random (reservoir sampling: one pass, bounded memory)."""
    kept: list[Row] = []
    rng = np.random.default_rng(seed)
    n_usable = 0
    for row in rows:
        found.rows_read += 1
        if isinstance(row, Dropped):
            found.dropped.append(row)
            continue
        n_usable += 1
        if max_rows is None or len(kept) < max_rows:
            kept.append(row)
        elif (at := int(rng.integers(n_usable))) < max_rows:
            kept[at] = row
    return kept


def _phrasebook_held_out(settings: Settings, languages: set[str] | None) -> list[Meaning]:
    if all(source.path != PHRASEBOOK for source in settings.data.parallel):
        return []
    held_out = load_phrasebook().held_out
    if languages is None:
        return held_out
    return [Meaning(row.id, {lang: text for lang, text in row.texts.items() if lang in languages}) for row in held_out]


def _split_pairs(pairs: list[Pair], held_out: list[Meaning], settings: Settings) -> _Split:
    extra = [
        Pair(a, b, meaning.texts[a], meaning.texts[b], f"{PHRASEBOOK}:{meaning.id}", f"{PHRASEBOOK}:{meaning.id}")
        for meaning in held_out
        for a, b in ring(meaning.texts, meaning.id)
    ]
    everything = [*pairs, *extra]
    meanings = components([pair_keys(pair) for pair in everything])
    n_meanings = int(meanings.max()) + 1 if everything else 0
    never_train = np.zeros(n_meanings, dtype=bool)
    never_train[meanings[len(pairs) :]] = True
    # The phrasebook brings its own held-out fillings: its training sentences stay in training.
    never_dev = np.zeros(n_meanings, dtype=bool)
    from_phrasebook = [i for i, pair in enumerate(pairs) if pair.where.startswith(PHRASEBOOK)]
    never_dev[meanings[from_phrasebook]] = True
    budget = _dev_budget(len(pairs), settings.data.dev_pairs)
    in_dev = _draw(np.bincount(meanings, minlength=n_meanings), ~never_dev, budget, settings.seed)
    in_train = ~in_dev & ~never_train
    train = [i for i in range(len(everything)) if in_train[meanings[i]]]
    dev = [i for i in range(len(everything)) if in_dev[meanings[i]]]
    return _Split(
        train=[everything[i] for i in train],
        dev=[everything[i] for i in dev],
        train_meanings=meanings[train],
        dev_meanings=meanings[dev],
        own_dev=[i < len(pairs) for i in dev],
        n_meanings=n_meanings,
    )


def _dev_budget(rows: int, most: int) -> int:
    return min(most, max(1, rows // 10))


def _draw(sizes: np.ndarray, allowed: np.ndarray, budget: int, seed: int) -> np.ndarray:
    """A random choice of groups of at most `budget` rows in all; bool [groups].

    Never all groups; at least one where there are two, the smallest if every one exceeds the budget.
    """
    chosen = np.zeros(len(sizes), dtype=bool)
    if len(sizes) < 2 or not allowed.any():
        return chosen
    left = budget
    for group in np.random.default_rng((seed, 1)).permutation(np.flatnonzero(allowed)):
        if sizes[group] <= left and chosen.sum() < len(sizes) - 1:
            chosen[group] = True
            left -= int(sizes[group])
        if left == 0:
            break
    if not chosen.any():
        chosen[min(np.flatnonzero(allowed), key=lambda group: sizes[group])] = True
    return chosen


def _dev_meanings(split: _Split) -> list[Meaning]:
    """The dev split's own pairs as sentences in several languages."""
    texts: dict[int, dict[str, str]] = {}
    for pair, meaning, own in zip(split.dev, split.dev_meanings.tolist(), split.own_dev, strict=True):
        if own:
            known = texts.setdefault(meaning, {})
            known.setdefault(pair.src_lang, pair.src)
            known.setdefault(pair.tgt_lang, pair.tgt)
    return [Meaning(f"dev:{meaning}", by_language) for meaning, by_language in texts.items()]


def _add_pairs(found: Gathered, split: _Split, settings: Settings, *, n_train: int | None, n_dev: int | None) -> None:
    """Training pairs in both directions, dev pairs in one of the two by turns; the given numbers at random, default all."""
    rng = np.random.default_rng((settings.seed, 2))
    both = settings.data.both_directions
    directed = np.arange(len(split.train) * (2 if both else 1))
    if n_train is not None and n_train < len(directed):
        directed = np.sort(rng.choice(directed, n_train, replace=False))
    for i in directed.tolist():
        pair, reverse = divmod(i, 2) if both else (i, 0)
        found.train.append(_turned(split.train[pair]) if reverse else split.train[pair])
        found.train_meanings.append(int(split.train_meanings[pair]))
    dev = np.arange(len(split.dev))
    if n_dev is not None and n_dev < len(dev):
        dev = np.sort(rng.choice(dev, n_dev, replace=False))
    for i in dev.tolist():
        found.dev.append(_turned(split.dev[i]) if both and i % 2 else split.dev[i])
        found.dev_meanings.append(int(split.dev_meanings[i]))


def _turned(pair: Pair) -> Pair:
    return replace(pair, src_lang=pair.tgt_lang, tgt_lang=pair.src_lang, src=pair.tgt, tgt=pair.src)


def _add_instruct(found: Gathered, split: _Split, rows: list[Instruction], settings: Settings) -> None:
    """General instructions, and translation instructions up to their share of the whole."""
    share = settings.data.translation_share
    held_out = {key for pair in split.dev for key in pair_keys(pair)}
    meanings = components([task_keys(row) for row in rows])
    n_meanings = int(meanings.max()) + 1 if rows else 0
    tied = np.zeros(n_meanings, dtype=bool)
    tied[[m for row, m in zip(rows, meanings.tolist(), strict=True) if not held_out.isdisjoint(instruction_keys(row))]] = True
    # An answer that the translations train on would be known beforehand.
    trained = {normalise(text) for pair in split.train for text in (pair.src, pair.tgt)} if rows and share > 0 else set()
    allowed = np.ones(n_meanings, dtype=bool)
    allowed[[m for row, m in zip(rows, meanings.tolist(), strict=True) if normalise(row.output) in trained]] = False
    budget = max(1, round(_dev_budget(len(rows), settings.data.dev_pairs) * (1 - share)))
    in_dev = _draw(np.bincount(meanings, minlength=n_meanings), allowed, budget, settings.seed)
    train = [i for i, m in enumerate(meanings.tolist()) if not in_dev[m] and not tied[m]]
    dev = [i for i, m in enumerate(meanings.tolist()) if in_dev[m]]

    n_pairs = len(split.train) * (2 if settings.data.both_directions else 1)
    n_translation = n_pairs if share == 1 else round(len(train) * share / (1 - share))
    if n_translation > n_pairs > 0:
        n_translation, n_train = n_pairs, round(n_pairs * (1 - share) / share)
        train = sorted(np.random.default_rng((settings.seed, 3)).choice(train, n_train, replace=False).tolist())
    n_dev = len(split.dev) if share == 1 else round(len(dev) * share / (1 - share))
    _add_pairs(found, split, settings, n_train=n_translation, n_dev=n_dev)
    for chosen, target, numbers in ((train, found.train, found.train_meanings), (dev, found.dev, found.dev_meanings)):
        if share < 1:
            target += [rows[i] for i in chosen]
            numbers += [split.n_meanings + int(meanings[i]) for i in chosen]
