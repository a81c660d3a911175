"""Rows split into train and dev by whole meanings, so that nothing said in one is said in the other.

Rows joined by a chain of shared texts or groups have one meaning (see dedupe.py). The split of the pairs depends on `data.parallel`,
`data.dev_pairs` and `seed` alone, so both stages hold out the same sentences.
"""

from dataclasses import dataclass

import numpy as np

from alignx_fast.config import Settings
from alignx_fast.data.corpora import ring
from alignx_fast.data.dedupe import Mask, Numbers, components
from alignx_fast.data.keyed import KeyedInstructions, KeyedPairs, pair_numbers
from alignx_fast.data.phrasebook import PHRASEBOOK
from alignx_fast.data.rows import Instruction, Meaning, Pair
from alignx_fast.data.stored import Chosen, Rows


@dataclass(frozen=True)
class PairSplit:
    """Pairs in one direction each."""

    train: Rows[Pair]
    dev: Rows[Pair]
    train_keys: Numbers
    """Of the texts and groups in train, as in `KeyedPairs`."""
    dev_keys: Numbers
    dev_sentences: list[Meaning]
    """The dev pairs of the user's sources as sentences in several languages; the phrasebook's held-out ones are not among them."""
    n_meanings: int
    about_held_out: Chosen[Pair]
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
    about_held_out: Chosen[Instruction]
    """As in `PairSplit`."""


def split_pairs(pairs: KeyedPairs, held_out: list[Meaning], settings: Settings) -> PairSplit:
    """Split the pairs; `held_out` are the phrasebook's sentences that never enter train, added here as candidates for dev."""
    held_out_pairs = [
        Pair(a, b, meaning.texts[a], meaning.texts[b], f"{PHRASEBOOK}:{meaning.id}", f"{PHRASEBOOK}:{meaning.id}")
        for meaning in held_out
        for a, b in ring(meaning.texts, meaning.id)
    ]
    n_pairs, store = len(pairs.numbers), pairs.store
    added = np.array([store.append(pair) for pair in held_out_pairs], dtype=np.int64)
    keys = np.concatenate([pairs.keys, np.array([pair_numbers(pair) for pair in held_out_pairs], np.int64).reshape(-1, 3)])
    meanings = components(keys)
    sizes = np.bincount(meanings)
    may_train = np.ones(len(sizes), dtype=bool)
    may_train[meanings[n_pairs:]] = False
    # The phrasebook brings held-out sentences of its own, so its training sentences are not needed for dev.
    may_dev = _without(len(sizes), meanings[:n_pairs], pairs.of_phrasebook)
    in_dev = draw_groups(sizes, may_dev, dev_budget(n_pairs, settings.data.dev_pairs), settings.seed)
    in_train = may_train & ~in_dev
    rows: Rows[Pair] = Rows.of(store, np.concatenate([pairs.numbers, added]), meanings)
    train, dev = np.flatnonzero(in_train[meanings]), np.flatnonzero(in_dev[meanings])
    unused = np.flatnonzero(~(in_dev | in_train)[meanings])
    return PairSplit(
        train=rows.take(train),
        dev=rows.take(dev),
        train_keys=keys[train],
        dev_keys=keys[dev],
        dev_sentences=_sentences(rows.take(dev[dev < n_pairs])),
        n_meanings=len(sizes),
        about_held_out=rows.take(unused[unused < n_pairs]).rows,
        n_held_out=len(held_out_pairs),
        n_reserved=int((unused >= n_pairs).sum()),
    )


def split_instructions(instructions: KeyedInstructions, pairs: PairSplit, settings: Settings) -> InstructionSplit:
    """Split the instructions; train has nothing of the dev pairs, and dev no answer that a training pair gives away."""
    share = settings.data.translation_share
    meanings = components(instructions.task_keys)
    # 0 stands for no key, which is nothing that two rows share
    about_held_out = np.asarray(np.isin(instructions.keys, pairs.dev_keys[pairs.dev_keys != 0]).any(axis=1))
    answer_known = np.isin(instructions.answers, pairs.train_keys[:, :2] if share > 0 else [])
    sizes = np.bincount(meanings)
    may_train = _without(len(sizes), meanings, about_held_out)
    may_dev = _without(len(sizes), meanings, answer_known)
    budget = max(1, round(dev_budget(len(meanings), settings.data.dev_pairs) * (1 - share)))
    in_dev = draw_groups(sizes, may_dev, budget, settings.seed)
    in_train = may_train & ~in_dev
    rows: Rows[Instruction] = Rows.of(instructions.store, instructions.numbers, pairs.n_meanings + meanings)
    return InstructionSplit(
        train=rows.take(np.flatnonzero(in_train[meanings])),
        dev=rows.take(np.flatnonzero(in_dev[meanings])),
        about_held_out=rows.take(np.flatnonzero(~(in_dev | in_train)[meanings])).rows,
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


def _without(n_meanings: int, meanings: Numbers, excluded: Mask) -> Mask:
    """Meanings none of whose rows is excluded."""
    kept = np.ones(n_meanings, dtype=bool)
    kept[meanings[excluded]] = False
    return kept


def _sentences(pairs: Rows[Pair]) -> list[Meaning]:
    texts: dict[int, dict[str, str]] = {}
    for pair, meaning in zip(pairs.rows, pairs.meanings.tolist(), strict=True):
        known = texts.setdefault(meaning, {})
        known.setdefault(pair.src_lang, pair.src)
        known.setdefault(pair.tgt_lang, pair.tgt)
    return [Meaning(f"dev:{meaning}", by_language) for meaning, by_language in texts.items()]
