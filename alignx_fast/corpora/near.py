"""Texts that are nearly the same: MinHash over letter 5-grams (by rensa), in bands (Leskovec, Rajaraman and Ullman, chapter 3)."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from alignx_fast.corpora.keys import Keys, mixed
from alignx_fast.errors import UserError

LETTERS = 5
BANDS, PER_BAND = 8, 4
"""Two texts with a similarity of 0.8 share a band with probability 0.985, two with 0.2 with 0.013."""
DIGEST = BANDS * PER_BAND
NO_BAND = np.uint64(0)

Digests = NDArray[np.uint32]


class NearIndex:
    """Texts to be found by others that overlap with them."""

    def __init__(self, texts: Sequence[str], similarity: float) -> None:
        self.similarity = similarity
        self.texts = texts
        keys = bands(digests(texts))
        self._order = np.argsort(keys, axis=0, kind="stable")
        self._sorted = np.take_along_axis(keys, self._order, axis=0)

    def matches(self, texts: Sequence[str]) -> Iterator[tuple[int, int]]:
        """(position in `texts`, position in the index) of every text that overlaps by at least `similarity`; once for each text."""
        done: set[int] = set()
        keys = bands(digests(texts))
        for band in range(BANDS):
            left = np.searchsorted(self._sorted[:, band], keys[:, band], side="left")
            right = np.searchsorted(self._sorted[:, band], keys[:, band], side="right")
            for at in np.flatnonzero((right > left) & (keys[:, band] != NO_BAND)).tolist():
                if at in done:
                    continue
                for other in self._order[left[at] : right[at], band].tolist():
                    if jaccard(texts[at], self.texts[other]) >= self.similarity:
                        done.add(at)
                        yield at, other
                        break


def digests(texts: Sequence[str]) -> Digests:
    """MinHash digests of the letter 5-grams of every text, case aside; uint32 [texts, DIGEST], zeros for texts of fewer letters."""
    try:
        import rensa
    except ModuleNotFoundError:
        raise UserError(
            "Near duplicates and near leaks are found by rensa: `pip install rensa`, or switch both off with "
            "`--corpus.filters.near_leaks null`."
        ) from None
    hashes, offsets = _shingles(texts)
    matrix = rensa.RMinHash.digest_matrix_from_flat_token_hashes(hashes, offsets, num_perm=DIGEST, seed=0)
    found: Digests = np.array(matrix.to_rows(), dtype=np.uint32).reshape(-1, DIGEST)
    found[np.diff(offsets) == 0] = 0
    return found


def bands(found: Digests) -> Keys:
    """A key for each band of every digest; uint64 [texts, BANDS], `NO_BAND` for texts without a digest."""
    parts = found.astype(np.uint64).reshape(-1, BANDS, PER_BAND)
    keys = np.full(parts.shape[:2], 0, dtype=np.uint64) + np.arange(BANDS, dtype=np.uint64)
    for i in range(PER_BAND):
        keys = mixed(keys ^ parts[:, :, i])
    keys[~found.any(axis=1)] = NO_BAND
    return keys


def jaccard(a: str, b: str) -> float:
    """Share of the 5-grams of two texts that both have."""
    first, second = ({text[i : i + LETTERS] for i in range(len(text) - LETTERS + 1)} for text in (a.lower(), b.lower()))
    return len(first & second) / len(first | second) if first or second else 0.0


def _shingles(texts: Sequence[str]) -> tuple[Keys, Keys]:
    """Hashes of all 5-grams, text after text, and where each text's begin; uint64 [5-grams], [texts + 1]."""
    lowered = [text.lower() for text in texts]
    lengths = np.fromiter(map(len, lowered), dtype=np.int64, count=len(lowered))
    codes = np.frombuffer("".join(lowered).encode("utf-32-le", "surrogatepass"), dtype="<u4").astype(np.uint64)
    counts = np.maximum(lengths - LETTERS + 1, 0)
    offsets = np.concatenate([[0], np.cumsum(counts)])
    if not counts.any():
        return np.zeros(0, np.uint64), offsets.astype(np.uint64)
    hashes = codes[: len(codes) - LETTERS + 1].copy()
    for i in range(1, LETTERS):
        hashes *= np.uint64(0x100000001B3)  # FNV's prime
        hashes += codes[i : len(codes) - LETTERS + 1 + i]
    begins = np.cumsum(lengths) - lengths
    places = np.arange(offsets[-1]) + np.repeat(begins - offsets[:-1], counts)
    return mixed(hashes[places]), offsets.astype(np.uint64)
