"""Rows whose texts lie in a file: each costs memory for a few numbers alone."""

import pickle
import tempfile
import weakref
from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from operator import attrgetter
from pathlib import Path
from typing import Generic, TypeVar, cast, overload

import numpy as np

from alignx_fast.data.dedupe import Mask, Numbers
from alignx_fast.data.rows import Instruction, Pair

IN_MEMORY_BYTES = 32 * 2**20
"""So much is kept in memory before a file is written: small data need no disk."""
KINDS: tuple[type[Pair], type[Instruction]] = (Pair, Instruction)
VALUES = {kind: attrgetter(*(field.name for field in fields(kind))) for kind in KINDS}


class Store:
    """Pairs and instructions in a temporary file without a name, found again by the order in which they were added."""

    def __init__(self, folder: Path | None = None) -> None:
        """`folder` takes the file; by default the system's folder for temporary files."""
        place = None if folder is None else str(folder)
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY_BYTES, dir=place)  # noqa: SIM115 - closed with the store
        weakref.finalize(self, _close, self._file)
        self._starts = array("q", [0])
        self._at_end = True
        self._codes: dict[str | None, int] = {}
        self._languages = array("i")  # two per row: numbers of `_codes`

    def __len__(self) -> int:
        return len(self._starts) - 1

    def append(self, row: Pair | Instruction) -> int:
        """Add a row; returns its number."""
        if not self._at_end:
            self._file.seek(self._starts[-1])
            self._at_end = True
        record = pickle.dumps((KINDS.index(type(row)), VALUES[type(row)](row)))
        self._file.write(record)
        self._starts.append(self._starts[-1] + len(record))
        for code in (row.src_lang, row.tgt_lang) if isinstance(row, Pair) else (row.lang, row.lang):
            self._languages.append(self._codes.setdefault(code, len(self._codes)))
        return len(self) - 1

    def __getitem__(self, number: int) -> Pair | Instruction:
        self._at_end = False
        self._file.seek(self._starts[number])
        kind, values = pickle.loads(self._file.read(self._starts[number + 1] - self._starts[number]))
        return KINDS[kind](*values)

    def languages(self, numbers: Numbers) -> set[str]:
        """All languages of these rows."""
        known = np.array(self._languages, dtype=np.int32).reshape(-1, 2)
        used = set(np.unique(known[numbers]).tolist())
        return {code for code, number in self._codes.items() if code is not None and number in used}


def _close(file: tempfile.SpooledTemporaryFile[bytes]) -> None:
    with suppress(OSError):  # a full disk takes the rest no more, which is not needed
        file.close()


Row = TypeVar("Row", covariant=True)


@dataclass(frozen=True, slots=True, eq=False)
class Chosen(Sequence[Row]):
    """Rows of a store in some order, each read when it is asked for."""

    store: Store
    numbers: Numbers
    """Of the rows in the store, int64 [rows]."""
    turned: Mask
    """Whether source and target change places, bool [rows]."""

    def __len__(self) -> int:
        return len(self.numbers)

    @overload
    def __getitem__(self, at: int) -> Row: ...
    @overload
    def __getitem__(self, at: slice) -> list[Row]: ...
    def __getitem__(self, at: int | slice) -> Row | list[Row]:
        if isinstance(at, slice):
            return [self[i] for i in range(*at.indices(len(self)))]
        row = self.store[self.numbers[at]]
        if self.turned[at] and isinstance(row, Pair):
            row = Pair(row.tgt_lang, row.src_lang, row.tgt, row.src, row.group, row.where)
        return cast(Row, row)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Chosen) and list(self) == list(other)

    def languages(self) -> set[str]:
        """All languages of these rows, known without reading them."""
        return self.store.languages(self.numbers)


@dataclass(frozen=True, slots=True, eq=False)
class Rows(Generic[Row]):
    """Rows, and beside each the number of its meaning: rows of equal numbers say the same thing."""

    rows: Chosen[Row]
    meanings: Numbers
    """int64 [rows]"""

    @classmethod
    def of(cls, store: Store, numbers: Numbers, meanings: Numbers) -> "Rows[Row]":
        """The rows of these numbers in the store."""
        return cls(Chosen(store, numbers, np.zeros(len(numbers), dtype=bool)), meanings)

    def __len__(self) -> int:
        return len(self.rows)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rows) and self.rows == other.rows and np.array_equal(self.meanings, other.meanings)

    def take(self, at: Numbers) -> "Rows[Row]":
        """The rows at these positions, in this order."""
        return Rows(Chosen(self.rows.store, self.rows.numbers[at], self.rows.turned[at]), self.meanings[at])

    def turn(self, which: Mask) -> "Rows[Row]":
        """The same rows; source and target of some change places."""
        return Rows(Chosen(self.rows.store, self.rows.numbers, self.rows.turned ^ which), self.meanings)


def joined(first: Rows[Pair | Instruction], second: Rows[Instruction]) -> Rows[Pair | Instruction]:
    """All rows of two parts of one store."""
    a, b = first.rows, second.rows
    rows: Chosen[Pair | Instruction] = Chosen(
        a.store, np.concatenate([a.numbers, b.numbers]), np.concatenate([a.turned, b.turned])
    )
    return Rows(rows, np.concatenate([first.meanings, second.meanings]))
