"""The way from settings to datasets of tokens and spans, kept between runs."""

import json
import time
import zlib
from array import array
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import track
from transformers import PreTrainedTokenizerBase

from alignx_fast.config import Settings
from alignx_fast.data.cache import building, fingerprint
from alignx_fast.data.gather import Gathered, gather
from alignx_fast.data.rows import Dropped, Instruction, Meaning, Pair, Reason
from alignx_fast.data.spans import Example, bos_ids, closing_id, encode_batches
from alignx_fast.data.templates import Rendered, Template, choose
from alignx_fast.errors import UserError
from alignx_fast.stages import Stage

ROWS_PER_BATCH = 4096
"""Rows handed to the tokenizer at once: enough for all of its threads, little in memory."""


@dataclass
class Prepared:
    """A stage's data."""

    train: datasets.Dataset
    """Columns as in `Example`."""
    dev: datasets.Dataset
    languages: list[str]
    """Sorted codes; `src_lang` and `tgt_lang` are indices into it."""
    summary: dict
    """Rows read, kept and dropped by reason; rows and tokens per language; lengths."""
    dropped_file: Path | None
    """JSON lines {where, reason, text} of every dropped row but those in languages that were not asked for."""
    eval_meanings: list[Meaning]
    """Held-out sentences in several languages; none of their texts is in train."""
    from_cache: bool


def prepare(settings: Settings, tokenizer: PreTrainedTokenizerBase, stage: Stage) -> Prepared:
    """Read, clean, split and tokenise the rows of one stage, or load them as an earlier run left them.

    Raises:
        UserError: a source cannot be read, the tokenizer or its chat template cannot be used, or no usable row is left.
    """
    folder = settings.data.cache_dir.expanduser() / f"{stage}-{fingerprint(settings, tokenizer, stage)}"
    cached = folder.is_dir()
    if not cached:
        with building(folder) as partial:
            _build(partial, settings, tokenizer, stage)
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    meanings = json.loads((folder / "eval_meanings.json").read_text(encoding="utf-8"))
    dropped = folder / "dropped.jsonl"
    return Prepared(
        train=datasets.load_from_disk(str(folder / "train")),
        dev=datasets.load_from_disk(str(folder / "dev")),
        languages=list(summary["languages"]),
        summary=summary,
        dropped_file=dropped if dropped.is_file() else None,
        eval_meanings=[Meaning(**meaning) for meaning in meanings],
        from_cache=cached,
    )


def _build(folder: Path, settings: Settings, tokenizer: PreTrainedTokenizerBase, stage: Stage) -> None:
    began = time.monotonic()
    template = choose(settings.data.template, tokenizer)
    found = gather(settings, stage)
    languages = _languages(found)
    encoder = _Encoder(tokenizer, template, settings.data.max_length, {lang: i for i, lang in enumerate(languages)})
    train = encoder.encode(found.train, found.train_meanings, found.dropped, f"Tokenising {stage}")
    dev = encoder.encode(found.dev, found.dev_meanings, found.dropped, "Tokenising dev")
    if not len(train):
        raise UserError(f"Every row of stage {stage} is cut off at {settings.data.max_length} tokens. Raise data.max_length.")
    summary = {
        "stage": stage,
        "rows_read": found.rows_read,
        "dropped": dict(Counter(str(row.reason) for row in found.dropped).most_common()),
        "train": _describe(train, settings.data.max_length, closing_id(tokenizer, template)),
        "dev": _describe(dev, settings.data.max_length, closing_id(tokenizer, template)),
        "languages": _per_language(train, languages),
        "eval_meanings": len(found.evaluation),
        "template": template.name,
        "begins_with": tokenizer.decode(bos_ids(tokenizer)),
        "ends_with": tokenizer.decode([closing_id(tokenizer, template)]),
        "seconds": round(time.monotonic() - began, 1),
    }
    _save(train, folder / "train")
    _save(dev, folder / "dev")
    (folder / "summary.json").write_text(json.dumps(summary, ensure_ascii=False, indent=1), encoding="utf-8")
    (folder / "eval_meanings.json").write_text(
        json.dumps([asdict(meaning) for meaning in found.evaluation], ensure_ascii=False), encoding="utf-8"
    )
    listed = [row for row in found.dropped if row.reason != Reason.LANGUAGE]
    if listed:
        with (folder / "dropped.jsonl").open("w", encoding="utf-8") as stream:
            for row in listed:
                line = {"where": row.where, "reason": str(row.reason), "text": row.text[:400]}
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")


def _save(data: datasets.Dataset, folder: Path) -> None:
    """Write without the library's own progress bars."""
    were_off = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        data.save_to_disk(str(folder))
    finally:
        if not were_off:
            datasets.enable_progress_bars()


class _Encoder:
    """Rows to the columns of a dataset."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: Template, max_length: int, languages: dict[str, int]):
        self.tokenizer, self.template, self.max_length, self.languages = tokenizer, template, max_length, languages

    def encode(self, rows: list, meanings: list[int], dropped: list[Dropped], title: str) -> datasets.Dataset:
        """Tokenise all rows in batches; those that cannot be used go to `dropped`."""
        columns = _Columns()
        batches = range(0, len(rows), ROWS_PER_BATCH)
        rendered = ([self._render(row) for row in rows[at : at + ROWS_PER_BATCH]] for at in batches)
        encoded = zip(batches, encode_batches(self.tokenizer, self.template, rendered, self.max_length), strict=True)
        hidden = len(batches) < 4
        for at, examples in track(encoded, title, len(batches), console=Console(stderr=True), transient=True, disable=hidden):
            some = rows[at : at + ROWS_PER_BATCH]
            for row, meaning, example in zip(some, meanings[at : at + ROWS_PER_BATCH], examples, strict=True):
                if isinstance(example, Dropped):
                    dropped.append(Dropped(example.reason, _text_of(row), row.where))
                elif self.template.special_tokens and self.template.special_tokens.search(_text_of(row)):
                    dropped.append(Dropped(Reason.SPECIAL, _text_of(row), row.where))
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
    """Flat buffers that become the columns of a dataset without a detour over Python objects."""

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


def lengths(data: datasets.Dataset) -> np.ndarray:
    """Tokens of every row, int64 [rows], without reading the tokens."""
    import pyarrow.compute as pc

    column = data.with_format("arrow")[:]["input_ids"] if len(data) else pa.chunked_array([pa.array([], pa.list_(pa.int32()))])
    return pc.list_value_length(column).to_numpy().astype(np.int64)


def _text_of(row: Pair | Instruction) -> str:
    return f"{row.src} | {row.tgt}" if isinstance(row, Pair) else f"{row.instruction} | {row.input} | {row.output}"


def _languages(found: Gathered) -> list[str]:
    codes: set[str] = set()
    for row in [*found.train, *found.dev]:
        codes.update((row.src_lang, row.tgt_lang) if isinstance(row, Pair) else (row.lang,) if row.lang else ())
    return sorted(codes)


def _describe(data: datasets.Dataset, max_length: int, closing: int) -> dict:
    """Counts that fit on a line each."""
    tokens = lengths(data)
    full = np.flatnonzero(tokens == max_length).tolist()
    spans = np.array(data["source"][:], dtype=np.int64).reshape(-1, 2)
    paired = spans[:, 1] > spans[:, 0]
    return {
        "rows": len(data),
        "translation_rows": int(paired.sum()),
        "instruction_rows": int((~paired).sum()),
        "meanings": len(set(data["meaning"][:])),
        "tokens": int(tokens.sum()),
        "tokens_mean": round(float(tokens.mean()), 1) if len(tokens) else 0,
        "tokens_longest": int(tokens.max()) if len(tokens) else 0,
        "cut_at_max_length": sum(data[i]["input_ids"][-1] != closing for i in full),
    }


def _per_language(data: datasets.Dataset, languages: list[str]) -> dict[str, dict[str, int]]:
    """Rows with the language on either side, and tokens of its sentences."""
    sides = []
    for language, span in (("src_lang", "source"), ("tgt_lang", "target")):
        numbers = np.array(data[language][:], dtype=np.int64)
        spans = np.array(data[span][:], dtype=np.int64).reshape(-1, 2)
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
