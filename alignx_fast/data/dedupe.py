"""What says the same thing: duplicates, and groups of rows that share a text or a group name."""

import unicodedata
from collections.abc import Hashable, Iterable, Sequence

import numpy as np

from alignx_fast.data.rows import Instruction, Pair


def normalise(text: str) -> str:
    """The form in which texts are compared: NFKC, lower case, single blanks."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return " ".join(text.lower().split())


def pair_keys(pair: Pair) -> tuple[str, ...]:
    """What a pair says: both texts and its group. Pairs that share a key are one meaning."""
    texts = (normalise(pair.src), normalise(pair.tgt))
    return texts if pair.group is None else (*texts, _group_key(pair.group))


def instruction_keys(row: Instruction) -> tuple[str, ...]:
    """Texts of an instruction that may be a sentence seen elsewhere, and its group."""
    texts = tuple(text for text in map(normalise, (row.instruction, row.input, row.output)) if text)
    return texts if row.group is None else (*texts, _group_key(row.group))


def task_keys(row: Instruction) -> tuple[str, ...]:
    """What ties instructions into one meaning: task and input, a shared input, a shared group.

    Not the answer: short ones such as "yes" recur in unrelated rows.
    """
    task = f"{normalise(row.instruction)}\0{normalise(row.input)}"
    keys = (task, normalise(row.input)) if row.input else (task,)
    return keys if row.group is None else (*keys, _group_key(row.group))


def _group_key(group: str) -> str:
    return f"\0{group}"  # no normalised text begins so


def components(rows: Sequence[Iterable[Hashable]]) -> np.ndarray:
    """int64 [len(rows)]: equal numbers for rows joined by a chain of shared keys; numbered 0, 1, ... by first appearance."""
    parent = list(range(len(rows)))

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first: dict[Hashable, int] = {}
    for i, keys in enumerate(rows):
        for key in keys:
            a, b = root(first.setdefault(key, i)), root(i)
            parent[max(a, b)] = min(a, b)
    roots = np.fromiter((root(i) for i in range(len(rows))), dtype=np.int64, count=len(rows))
    return np.unique(roots, return_inverse=True)[1].astype(np.int64).reshape(-1)
