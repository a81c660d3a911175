"""What says the same thing: duplicates, and groups of rows that share a text or a group name."""

import hashlib
import unicodedata

import numpy as np
from numpy.typing import NDArray

from alignx_fast.data.rows import Instruction, Pair

Mask = NDArray[np.bool_]
Numbers = NDArray[np.int64]

KEYS_AT_ONCE = 2**23
"""Keys that are sorted together: about 200 MB."""


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


def key_of(text: str) -> int:
    """64 bits that stand for a text, so that the text itself need not be kept; never 0."""
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True) or 1


def first_of_each(keys: Numbers) -> Mask:
    """bool [len(keys)]: whether a key comes for the first time."""
    first = np.zeros(len(keys), dtype=bool)
    first[np.unique(keys, return_index=True)[1]] = True
    return first


def components(keys: Numbers) -> Numbers:
    """int64 [rows]: equal numbers for rows joined by a chain of shared keys; numbered 0, 1, ... by first appearance.

    Args:
        keys: int64 [rows, most keys of a row]; 0 is no key.
    """
    flat, width = keys.reshape(-1), keys.shape[1]
    root = np.arange(len(keys))
    parts = 1 + len(flat) // KEYS_AT_ONCE
    for part in range(parts):
        positions = np.flatnonzero(flat % parts == part)
        positions = positions[np.argsort(flat[positions], kind="stable")]
        shared = (flat[positions[1:]] == flat[positions[:-1]]) & (flat[positions[1:]] != 0)
        root = _joined(root, positions[:-1][shared] // width, positions[1:][shared] // width)
    return np.unique(root, return_inverse=True)[1].astype(np.int64).reshape(-1)


def _joined(root: Numbers, a: Numbers, b: Numbers) -> Numbers:
    """The first row of every component once the rows `a` and `b` are of one; `root` holds the first rows before."""
    while True:
        low, high = np.minimum(root[a], root[b]), np.maximum(root[a], root[b])
        apart = low != high
        if not apart.any():
            return root
        a, b = a[apart], b[apart]
        np.minimum.at(root, high[apart], low[apart])
        while not np.array_equal(above := root[root], root):
            root = above
