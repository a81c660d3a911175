"""Rows to a dataset of tokens and spans, in batches."""

import hashlib
import os
import tempfile
import zlib
from array import array
from collections import deque
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
from datasets.table import MemoryMappedTable
from rich.console import Console
from rich.progress import track
from transformers import PreTrainedTokenizerBase

from alignx_fast.data.rows import Dropped, DroppedRows, Instruction, Pair
from alignx_fast.data.spans import Example, encode_batches
from alignx_fast.data.stored import Rows
from alignx_fast.data.templates import Rendered, Template

ROWS_PER_BATCH = 4096
"""Rows handed to the tokenizer at once: enough for all of its threads, little in memory."""


class Encoder:
    """Rows to the columns of a dataset."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, template: Template, max_length: int, languages: dict[str, int]
    ) -> None:
        self.tokenizer, self.template, self.max_length, self.languages = tokenizer, template, max_length, languages

    def encode(
        self, rows: Rows[Pair | Instruction], dropped: DroppedRows, title: str, folder: Path | None = None
    ) -> datasets.Dataset:
        """Tokenise all rows in batches; those that cannot be used go to `dropped`.

        Args:
            folder: where a file without a name holds the tokens while they are used; by default the system's temporary folder.
        """
        return _mapped(self._tables(rows, dropped, title), folder)

    def _tables(self, rows: Rows[Pair | Instruction], dropped: DroppedRows, title: str) -> Iterator[pa.Table]:
        starts = range(0, len(rows), ROWS_PER_BATCH)
        waiting: deque[list[Pair | Instruction]] = deque()  # read, and not finished by the tokenizer

        def rendered() -> Iterator[list[Rendered]]:
            for at in starts:
                waiting.append(rows.rows[at : at + ROWS_PER_BATCH])
                yield [self._render(row) for row in waiting[-1]]

        encoded = zip(starts, encode_batches(self.tokenizer, self.template, rendered(), self.max_length), strict=True)
        hidden = len(starts) < 4
        for at, examples in track(encoded, title, len(starts), console=Console(stderr=True), transient=True, disable=hidden):
            columns = _Columns()
            meanings = rows.meanings[at : at + ROWS_PER_BATCH].tolist()
            for row, meaning, example in zip(waiting.popleft(), meanings, examples, strict=True):
                if isinstance(example, Dropped):
                    dropped.add(Dropped(example.reason, row.text, row.where))
                else:
                    columns.add(example, *self._language_numbers(row), meaning)
            yield columns.table()

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

    def table(self) -> pa.Table:
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
        return pa.table(table)


def _mapped(tables: Iterator[pa.Table], folder: Path | None) -> datasets.Dataset:
    """Write tables to a file as they come, and map it as a dataset: it loses its name, and lasts as long as the dataset."""
    none = _Columns().table()  # says the columns where there is no row
    number, name = tempfile.mkstemp(dir=folder)
    try:
        with open(number, "w+b") as file:
            with pa.ipc.new_stream(file, none.schema) as writer:
                for table in chain([none], tables):
                    writer.write_table(table)
            file.seek(0)
            digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8))
        return datasets.Dataset(MemoryMappedTable.from_file(name), fingerprint=digest.hexdigest())
    finally:
        os.unlink(name)
