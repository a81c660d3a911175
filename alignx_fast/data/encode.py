"""Rows to a dataset of tokens and spans, in batches."""

import zlib
from array import array

import datasets
import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import track
from transformers import PreTrainedTokenizerBase

from alignx_fast.data.rows import Dropped, DroppedRows, Instruction, Pair, Rows
from alignx_fast.data.spans import Example, encode_batches
from alignx_fast.data.templates import Rendered, Template

ROWS_PER_BATCH = 4096
"""Rows handed to the tokenizer at once: enough for all of its threads, little in memory."""


class Encoder:
    """Rows to the columns of a dataset."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: Template, max_length: int, languages: dict[str, int]
    ) -> None:
        self.tokenizer, self.template, self.max_length, self.languages = tokenizer, template, max_length, languages

    def encode(self, rows: Rows[Pair | Instruction], dropped: DroppedRows, title: str) -> datasets.Dataset:
        """Tokenise all rows in batches; those that cannot be used go to `dropped`."""
        columns = _Columns()
        batches = range(0, len(rows), ROWS_PER_BATCH)
        rendered = ([self._render(row) for row in rows.rows[at : at + ROWS_PER_BATCH]] for at in batches)
        encoded = zip(batches, encode_batches(self.tokenizer, self.template, rendered, self.max_length), strict=True)
        hidden = len(batches) < 4
        for at, examples in track(encoded, title, len(batches), console=Console(stderr=True), transient=True, disable=hidden):
            batch = slice(at, at + ROWS_PER_BATCH)
            for row, meaning, example in zip(rows.rows[batch], rows.meanings[batch], examples, strict=True):
                if isinstance(example, Dropped):
                    dropped.add(Dropped(example.reason, row.text, row.where))
                else:
                    columns.add(example, *self._language_numbers(row), meaning)
        return columns.dataset()

    def _render(self, row: Pair | Instruction) -> Rendered:
        if isinstance(row, Instruction):
            return self.template.render_instruction(row)
        return self.template.render_pair(row, zlib.crc32(f"{row.tgt_lang}\0{row.src}".encode()))

    def _language_numbers(self, row: Pair | Instruction) -> tuple[int, int]:
        if isinstance(row, Pair):
            return self.languages[row.src_lang], self.languages[row.tgt_lang]
        number = -1 if row.lang is None else self.languages[row.lang]
        return number, number


class _Columns:
    """Flat buffers that become the columns of a dataset without one Python object a row."""

    def __init__(self) -> None:
        self.tokens, self.ends = array("i"), array("q", [0])
        self.numbers = array("q")  # prompt_length, source, target, src_lang, tgt_lang, meaning: eight per row

    def add(self, example: Example, src_lang: int, tgt_lang: int, meaning: int) -> None:
        self.tokens.extend(example["input_ids"])
        self.ends.append(len(self.tokens))
        self.numbers.extend((example["prompt_length"], *example["source"], *example["target"], src_lang, tgt_lang, meaning))

    def dataset(self) -> datasets.Dataset:
        """Columns as in `Example`."""
        numbers = np.frombuffer(self.numbers, dtype=np.int64).reshape(-1, 8)
        ends = np.frombuffer(self.ends, dtype=np.int64)
        tokens = pa.array(np.frombuffer(self.tokens, dtype=np.int32)) if len(self.tokens) else pa.array([], pa.int32())
        span_ends = pa.array(np.arange(len(numbers) + 1, dtype=np.int32) * 2)
        table = {
            "input_ids": pa.LargeListArray.from_arrays(pa.array(ends), tokens),
            "prompt_length": pa.array(numbers[:, 0].astype(np.int32)),
            "source": pa.ListArray.from_arrays(span_ends, pa.array(numbers[:, 1:3].astype(np.int32).reshape(-1))),
            "target": pa.ListArray.from_arrays(span_ends, pa.array(numbers[:, 3:5].astype(np.int32).reshape(-1))),
            "src_lang": pa.array(numbers[:, 5].astype(np.int32)),
            "tgt_lang": pa.array(numbers[:, 6].astype(np.int32)),
            "meaning": pa.array(numbers[:, 7]),
        }
        return datasets.Dataset(pa.table(table))
