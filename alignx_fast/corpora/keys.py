"""Numbers of 64 bits that stand for texts: equal for texts that say the same, and random draws that depend on texts and seed alone."""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from alignx_fast.data.dedupe import normalise

Keys = NDArray[np.uint64]


def text_keys(texts: Iterable[str]) -> Keys:
    """A key for every text, the same for texts that are equal after NFKC, lower case and single blanks; uint64 [texts]."""
    return hashed(map(normalise, texts))


def hashed(texts: Iterable[str]) -> Keys:
    """A key for every text as it stands; uint64 [texts]."""
    digests = [hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest() for text in texts]
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def pair_keys(src: Keys, tgt: Keys, src_langs: Sequence[str], tgt_langs: Sequence[str]) -> Keys:
    """A key for every pair, whichever side comes first; uint64 [pairs]."""
    languages = sorted({*src_langs, *tgt_langs})
    numbers = dict(zip(languages, hashed(languages).tolist(), strict=True))
    a = src ^ np.array([numbers[lang] for lang in src_langs], dtype=np.uint64)
    b = tgt ^ np.array([numbers[lang] for lang in tgt_langs], dtype=np.uint64)
    return mixed(mixed(np.minimum(a, b)) ^ np.maximum(a, b))


def draws(keys: Keys, seed: int) -> Keys:
    """A random number for every key; uint64 [keys]. Sorting by it shuffles, whatever the order was before."""
    return mixed(keys ^ mixed(np.array([seed], dtype=np.uint64)))


def mixed(numbers: Keys) -> Keys:
    """splitmix64 (Steele, Lea and Flood 2014): neighbouring numbers become unrelated ones."""
    z = numbers + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
