"""Rows split into train and dev by whole meanings, so that nothing said in one is said in the other.

Rows joined by a chain of shared texts or groups have one meaning (see dedupe.py). The split of the pairs depends on `data.parallel`,
`data.dev_pairs` and `seed` alone, so both stages hold out the same sentences.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignx_fast.config import Settings
from alignx_fast.data.corpora import ring
from alignx_fast.data.dedupe import components, instruction_keys, normalise, pair_keys, task_keys
from alignx_fast.data.phrasebook import PHRASEBOOK
from alignx_fast.data.rows import Instruction, Meaning, Pair, Rows

Mask = NDArray[np.bool_]
Numbers = NDArray[np.int64]


@dataclass(frozen=True)
class PairSplit:
    """Pairs in one direction each."""

    train: Rows[Pair]
    dev: Rows[Pair]
    dev_sentences: list[Meaning]
    """The dev pairs of the user's sources as sentences in several languages; the phrasebook's held-out ones are not among them."""
    n_meanings: int
    about_held_out: list[Pair]
    """Pairs in neither, because they share a text or group with what is held out."""
    n_held_out: int
    """The phrasebook's held-out pairs: read like the others, and in dev or in neither."""
    n_reserved: int
    """Those of them in neither."""


@dataclass(frozen=True)
class InstructionSplit:
    """Instructions, their meanings numbered after those of the pairs."""

    train: Rows[Instruction]
    dev: Rows[Instruction]
    about_held_out: list[Instruction]
    """As in `PairSplit`."""


def split_pairs(pairs: list[Pair], held_out: list[Meaning], settings: Settings) -> PairSplit:
    """Split the pairs; `held_out` are the phrasebook's sentences that never enter train, added here as candidates for dev."""
    held_out_pairs = [
        Pair(a, b, meaning.texts[a], meaning.texts[b], f"{PHRASEBOOK}:{meaning.id}", f"{PHRASEBOOK}:{meaning.id}")
        for meaning in held_out
        for a, b in ring(meaning.texts, meaning.id)
    ]
    everything = [*pairs, *held_out_pairs]
    meanings = components([pair_keys(pair) for pair in everything])
    sizes = np.bincount(meanings)
    may_train = np.ones(len(sizes), dtype=bool)
    may_train[meanings[len(pairs) :]] = False
    # The phrasebook brings held-out sentences of its own, so its training sentences are not needed for dev.
    may_dev = np.ones(len(sizes), dtype=bool)
    may_dev[meanings[[i for i, pair in enumerate(pairs) if pair.where.startswith(PHRASEBOOK)]]] = False
    in_dev = draw_groups(sizes, may_dev, dev_budget(len(pairs), settings.data.dev_pairs), settings.seed)
    in_train = may_train & ~in_dev
    rows = Rows(everything, meanings.tolist())
    dev = np.flatnonzero(in_dev[meanings]).tolist()
    unused = np.flatnonzero(~(in_dev | in_train)[meanings]).tolist()
    return PairSplit(
        train=rows.take(np.flatnonzero(in_train[meanings]).tolist()),
        dev=rows.take(dev),
        dev_sentences=_sentences(rows.take(i for i in dev if i < len(pairs))),
        n_meanings=len(sizes),
        about_held_out=[pairs[i] for i in unused if i < len(pairs)],
        n_held_out=len(held_out_pairs),
        n_reserved=sum(i >= len(pairs) for i in unused),
    )


def split_instructions(instructions: list[Instruction], pairs: PairSplit, settings: Settings) -> InstructionSplit:
    """Split the instructions; train has nothing of the dev pairs, and dev no answer that a training pair gives away."""
    share = settings.data.translation_share
    meanings = components([task_keys(row) for row in instructions])
    held_out = {key for pair in pairs.dev.rows for key in pair_keys(pair)}
    about_held_out = [not held_out.isdisjoint(instruction_keys(row)) for row in instructions]
    trained = {normalise(text) for pair in pairs.train.rows for text in (pair.src, pair.tgt)} if share > 0 else set()
    answer_known = [normalise(row.output) in trained for row in instructions]
    sizes = np.bincount(meanings)
    may_train = _without(len(sizes), meanings, about_held_out)
    may_dev = _without(len(sizes), meanings, answer_known)
    budget = max(1, round(dev_budget(len(instructions), settings.data.dev_pairs) * (1 - share)))
    in_dev = draw_groups(sizes, may_dev, budget, settings.seed)
    in_train = may_train & ~in_dev
    rows = Rows(instructions, (pairs.n_meanings + meanings).tolist())
    return InstructionSplit(
        train=rows.take(np.flatnonzero(in_train[meanings]).tolist()),
        dev=rows.take(np.flatnonzero(in_dev[meanings]).tolist()),
        about_held_out=[instructions[i] for i in np.flatnonzero(~(in_dev | in_train)[meanings]).tolist()],
    )


def dev_budget(rows: int, most: int) -> int:
    """Rows to hold out: a tenth, at least one, at most `most`."""
    return min(most, max(1, rows // 10))


def draw_groups(sizes: Numbers, allowed: Mask, budget: int, seed: int) -> Mask:
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
        chosen[min(np.flatnonzero(allowed), key=lambda group: int(sizes[group]))] = True
    return chosen


def _without(n_meanings: int, meanings: Numbers, excluded: Iterable[bool]) -> Mask:
    """Meanings none of whose rows is excluded."""
    kept = np.ones(n_meanings, dtype=bool)
    kept[meanings[np.fromiter(excluded, dtype=bool, count=len(meanings))]] = False
    return kept


def _sentences(pairs: Rows[Pair]) -> list[Meaning]:
    texts: dict[int, dict[str, str]] = {}
    for pair, meaning in zip(pairs.rows, pairs.meanings, strict=True):
        known = texts.setdefault(meaning, {})
        known.setdefault(pair.src_lang, pair.src)
        known.setdefault(pair.tgt_lang, pair.tgt)
    return [Meaning(f"dev:{meaning}", by_language) for meaning, by_language in texts.items()]
