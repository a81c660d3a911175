"""What a stage's data holds, in numbers: rows, tokens, languages, and what was dropped."""

from typing import TypedDict

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


class SplitSummary(TypedDict):
    """Counts of train or dev."""

    rows: int
    translation_rows: int
    instruction_rows: int
    meanings: int
    tokens: int
    tokens_mean: float
    tokens_longest: int
    cut_at_max_length: int


class LanguageSummary(TypedDict):
    """Counts of one language."""

    rows_as_source: int
    rows_as_target: int
    sentence_tokens: int


class Summary(TypedDict):
    """A stage's data as its run folder and the cache describe it.

    No row is lost: rows_read + rows_reversed = rows of train + rows of dev + all that is dropped.
    """

    stage: str
    rows_read: int
    """Pairs and instructions; a row with texts in several languages counts as the pairs that are made of it."""
    rows_reversed: int
    """Rows that were made of a pair by turning it round (`data.both_directions`)."""
    dropped: dict[str, int]
    """By reason, the most frequent first."""
    train: SplitSummary
    dev: SplitSummary
    languages: dict[str, LanguageSummary]
    eval_meanings: int
    eval_texts_dropped: dict[str, int]
    """Texts of the evaluation file that are not used, by reason."""
    template: str
    begins_with: str
    ends_with: str
    seconds: float


def lengths(data: datasets.Dataset) -> NDArray[np.int64]:
    """Tokens of every row, int64 [rows], without reading the tokens."""
    column = data.with_format("arrow")[:]["input_ids"] if len(data) else pa.chunked_array([pa.array([], pa.list_(pa.int32()))])
    return np.asarray(pc.list_value_length(column).to_numpy(), dtype=np.int64)


def _numbers(data: datasets.Dataset, column: str) -> NDArray[np.int64]:
    """All numbers of a column one after the other, int64, without a Python object for each."""
    values = data.with_format("arrow")[:][column]
    flat = values if pa.types.is_integer(values.type) else pc.list_flatten(values)
    return np.asarray(flat.to_numpy(), dtype=np.int64)


def split_summary(data: datasets.Dataset, max_length: int, closing: int) -> SplitSummary:
    """Counts of a split; `closing` is the token that ends a row which was not cut."""
    tokens = lengths(data)
    full = np.flatnonzero(tokens == max_length).tolist()
    spans = _numbers(data, "source").reshape(-1, 2)
    paired = spans[:, 1] > spans[:, 0]
    return {
        "rows": len(data),
        "translation_rows": int(paired.sum()),
        "instruction_rows": int((~paired).sum()),
        "meanings": len(np.unique(_numbers(data, "meaning"))),
        "tokens": int(tokens.sum()),
        "tokens_mean": round(float(tokens.mean()), 1) if len(tokens) else 0,
        "tokens_longest": int(tokens.max()) if len(tokens) else 0,
        "cut_at_max_length": sum(data[i]["input_ids"][-1] != closing for i in full),
    }


def per_language(data: datasets.Dataset, languages: list[str]) -> dict[str, LanguageSummary]:
    """Rows with the language on either side, and tokens of its sentences."""
    sides = []
    for language, span in (("src_lang", "source"), ("tgt_lang", "target")):
        numbers = _numbers(data, language)
        spans = _numbers(data, span).reshape(-1, 2)
        known = numbers >= 0
        rows = np.bincount(numbers[known], minlength=len(languages))
        tokens = np.bincount(numbers[known], weights=(spans[:, 1] - spans[:, 0])[known], minlength=len(languages))
        sides.append((rows, tokens.astype(np.int64)))
    (src_rows, src_tokens), (tgt_rows, tgt_tokens) = sides
    return {
        language: {
            "rows_as_source": int(src_rows[i]),
            "rows_as_target": int(tgt_rows[i]),
            "sentence_tokens": int(src_tokens[i] + tgt_tokens[i]),
        }
        for i, language in enumerate(languages)
    }
