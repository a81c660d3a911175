"""Sentences that must not be trained on: their keys, and their MinHash bands for what is nearly the same."""

from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from alignx_fast.corpora.keys import Keys, text_keys
from alignx_fast.corpora.near import NearIndex


class TestSets:
    """All sentences of the named test sets."""

    __test__ = False  # pytest takes classes of this name for tests

    def __init__(self, sentences: dict[str, Iterable[str]], similarity: float | None) -> None:
        self.names = list(sentences)
        self.counts: dict[str, int] = {}
        texts: dict[int, tuple[str, int]] = {}
        for number, name in enumerate(self.names):
            own = list(sentences[name])
            keys = text_keys(own).tolist()
            self.counts[name] = len(set(keys))
            for key, text in zip(keys, own, strict=True):
                texts.setdefault(key, (text, number))
        self.keys: Keys = np.array(sorted(texts), dtype=np.uint64)
        self._of_key = np.array([texts[key][1] for key in self.keys.tolist()], dtype=np.int64)
        self._of_text = [number for _, number in texts.values()]
        self.near = NearIndex([text for text, _ in texts.values()], similarity) if similarity and texts else None

    def table(self) -> pa.Table:
        """key -> test_set, for the engine."""
        return pa.table({"key": self.keys, "test_set": pa.array([self.names[i] for i in self._of_key], pa.string())})

    def of(self, keys: Keys) -> list[str | None]:
        """The test set that each key's text is in."""
        at = np.minimum(np.searchsorted(self.keys, keys), max(0, len(self.keys) - 1))
        if not len(self.keys):
            return [None] * len(keys)
        return [self.names[self._of_key[i]] if same else None for i, same in zip(at, self.keys[at] == keys, strict=True)]

    def near_rows(self, batch: pa.Table) -> pa.Table:
        """row -> test_set of the rows of a batch that nearly hold a sentence of a test set."""
        found: dict[int, str] = {}
        if self.near is not None:
            rows = batch["row"].to_numpy()
            for side in ("src", "tgt"):
                for at, text in self.near.matches(batch[side].to_pylist()):
                    found[int(rows[at])] = self.names[self._of_text[text]]
        return pa.table({"row": pa.array(list(found), pa.int64()), "test_set": pa.array(list(found.values()), pa.string())})
