"""Rows of a source in batches: Arrow tables with the keys by which every later step knows texts, pairs and groups."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from alignx_fast.corpora.keys import draws, hashed, pair_keys, text_keys
from alignx_fast.data.rows import Dropped, Pair

ROWS_PER_PART = 50_000
"""Rows cleaned at a time: a hundred bytes to a kilobyte each in memory."""
SOURCE_BITS = 40
"""Rows are numbered within their source in so many bits, and sources above them."""
EXAMPLES = 10


@dataclass
class Unusable:
    """Rows that no filter sees, because they can never be used: counts by reason, and the first few of each."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[dict[str, str]]] = field(default_factory=dict)

    def add(self, row: Dropped) -> None:
        """Count a row."""
        self.counts[str(row.reason)] += 1
        known = self.examples.setdefault(str(row.reason), [])
        if len(known) < EXAMPLES:
            known.append({"where": row.where, "text": row.text[:400]})

    def report(self) -> dict[str, object]:
        """What the card says of them."""
        return {"counts": dict(self.counts), "examples": self.examples}


def batches(rows: Iterable[Pair | Dropped], source: int, seed: int, unusable: Unusable) -> Iterator[pa.Table]:
    """Pairs of one source as tables of `ROWS_PER_PART` rows; what cannot be used goes to `unusable`."""
    pairs: list[Pair] = []
    first = source << SOURCE_BITS
    for row in rows:
        if isinstance(row, Dropped):
            unusable.add(row)
            continue
        pairs.append(row)
        if len(pairs) == ROWS_PER_PART:
            yield table(pairs, first, seed)
            first += len(pairs)
            pairs = []
    if pairs:
        yield table(pairs, first, seed)


def table(pairs: list[Pair], first: int, seed: int) -> pa.Table:
    """The columns of a part; rows are numbered from `first` on."""
    src_langs, tgt_langs = [pair.src_lang for pair in pairs], [pair.tgt_lang for pair in pairs]
    src, tgt = text_keys(pair.src for pair in pairs), text_keys(pair.tgt for pair in pairs)
    pair = pair_keys(src, tgt, src_langs, tgt_langs)
    groups = [pair.group for pair in pairs]
    return pa.table(
        {
            "row": pa.array(np.arange(first, first + len(pairs), dtype=np.int64)),
            "place": [pair.where for pair in pairs],
            "src_lang": src_langs,
            "tgt_lang": tgt_langs,
            "src": [pair.src for pair in pairs],
            "tgt": [pair.tgt for pair in pairs],
            "key_src": src,
            "key_tgt": tgt,
            "key_group": pa.array(hashed(group or "" for group in groups), mask=np.array([group is None for group in groups])),
            "pair": pair,
            "draw": draws(pair, seed),
        }
    )
