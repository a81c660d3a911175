"""Usable rows as they are read: the texts go to a store, and beside them stay the keys by which later steps compare rows."""

from array import array
from collections.abc import Callable, Set
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from alignx_fast.data.dedupe import Mask, Numbers, instruction_keys, key_of, normalise, pair_keys, task_keys
from alignx_fast.data.phrasebook import PHRASEBOOK
from alignx_fast.data.rows import Instruction, Pair
from alignx_fast.data.stored import Store

Texts = Set[str]
PAIR_WIDTH, INSTRUCTION_WIDTH = 6, 10
"""Columns of `pair_columns` and `instruction_columns`."""
Row = TypeVar("Row", Pair, Instruction)


@dataclass(frozen=True)
class KeyedPairs:
    """Pairs, and what they say."""

    store: Store
    numbers: Numbers
    """Of the pairs in the store, int64 [pairs]."""
    keys: Numbers
    """Of `dedupe.pair_keys`: both texts and the group, 0 where there is none; int64 [pairs, 3]."""
    of_phrasebook: Mask


@dataclass(frozen=True)
class KeyedInstructions:
    """Instructions, and what they say; 0 where there is no key."""

    store: Store
    numbers: Numbers
    """Of the instructions in the store, int64 [instructions]."""
    task_keys: Numbers
    """Of `dedupe.task_keys`, int64 [instructions, 3]."""
    keys: Numbers
    """Of `dedupe.instruction_keys`, int64 [instructions, 4]."""
    answers: Numbers
    """Keys of the answers, int64 [instructions]."""


class Collected(Generic[Row]):
    """Rows of one kind; each may still be replaced by another."""

    def __init__(self, store: Store, describe: Callable[[Row, Texts], list[int]], width: int, reserved: Texts) -> None:
        """`describe` gives a row's `width` columns: its identity, whether it has a text of `reserved`, and its keys."""
        self.store, self.width, self.reserved = store, width, reserved
        self.describe: Callable[[Row, Texts], list[int]] = describe
        self._numbers, self._table = array("q"), array("q")

    def __len__(self) -> int:
        return len(self._numbers)

    def put(self, at: int, row: Row) -> None:
        """Keep a row at this position, in place of the one there or after the last."""
        self._numbers[at : at + 1] = array("q", [self.store.append(row)])
        self._table[at * self.width : (at + 1) * self.width] = array("q", self.describe(row, self.reserved))

    @property
    def numbers(self) -> Numbers:
        """Of the rows in the store, int64 [rows]; no row may be put while it is in use."""
        return np.frombuffer(self._numbers, dtype=np.int64)

    @property
    def table(self) -> Numbers:
        """int64 [rows, width]; no row may be put while it is in use."""
        return np.frombuffer(self._table, dtype=np.int64).reshape(-1, self.width)


def pair_columns(pair: Pair, reserved: Texts) -> list[int]:
    """Identity, whether a text is reserved, whether it is of the phrasebook; then three keys."""
    src, tgt = pair_keys(pair)[:2]
    sides = sorted((f"{pair.src_lang}\0{src}", f"{pair.tgt_lang}\0{tgt}"))
    in_reserved = src in reserved or tgt in reserved
    return [key_of("\0".join(sides)), in_reserved, pair.where.startswith(PHRASEBOOK), *pair_numbers(pair)]


def pair_numbers(pair: Pair) -> list[int]:
    """The keys of a pair, as in `KeyedPairs`."""
    return _numbers(pair_keys(pair), 3)


def instruction_columns(row: Instruction, reserved: Texts) -> list[int]:
    """Identity, whether input or answer is reserved; then three keys of the task, four of all that is said, and the answer's."""
    texts = [normalise(text) for text in (row.instruction, row.input, row.output)]
    in_reserved = texts[1] in reserved or texts[2] in reserved
    said = [*_numbers(task_keys(row), 3), *_numbers(instruction_keys(row), 4)]
    return [key_of("\0".join(texts)), in_reserved, *said, key_of(texts[2])]


def _numbers(keys: tuple[str, ...], width: int) -> list[int]:
    return [*map(key_of, keys), *[0] * (width - len(keys))]
