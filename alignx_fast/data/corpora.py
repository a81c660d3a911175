"""Readers: every accepted format of parallel text, instructions and evaluation sentences, one row at a time.

A reader streams. What the user must fix raises `UserError` with file and line; what is merely unusable comes out as `Dropped`.
"""

import difflib
import os
import random
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

from alignx_fast.config import InstructionSource, ParallelSource
from alignx_fast.data.aligned import aligned_records
from alignx_fast.data.characters import is_broken
from alignx_fast.data.hub import hub_records
from alignx_fast.data.languages import NAMES
from alignx_fast.data.lines import Record, Row, jsonl_records, local, tsv_records
from alignx_fast.data.opening import uncompressed_name
from alignx_fast.data.phrasebook import PHRASEBOOK, load_phrasebook
from alignx_fast.data.prepared import INSTRUCTIONS, is_prepared, prepared_records
from alignx_fast.data.rows import Dropped, DroppedRows, Instruction, Meaning, Pair, Reason
from alignx_fast.data.tables import csv_records, parquet_records
from alignx_fast.data.tmx import tmx_records
from alignx_fast.data.values import group_of, id_of, is_missing, language_of, no_column, required, text_of
from alignx_fast.errors import UserError

PAIR_COLUMNS = ("src", "tgt", "src_lang", "tgt_lang", "gid", "id", "texts")
INSTRUCTION_COLUMNS = ("instruction", "input", "output", "lang", "gid")

RECORDS: dict[str, Callable[[str], Iterator[Record]]] = {
    "jsonl": jsonl_records,
    "csv": csv_records,
    "parquet": parquet_records,
    "tmx": tmx_records,
    "prepared": prepared_records,
}
"""Readers that need a path and nothing else."""

Languages = tuple[str | None, str | None]
"""The languages that a source sets for both of its sides; None where its rows say them."""


def read_pairs(
    source: ParallelSource, languages: Iterable[str] | None = None, records: Iterable[Record] | None = None
) -> Iterator[Pair | Dropped]:
    """Translation pairs of one source; only between `languages` (canonical codes) where given; `records` in place of its file's.

    A row with `texts` (or `translation`) in several languages gives a ring of pairs, see `ring`.

    Raises:
        UserError: missing file, wrong column, malformed line or unknown language code, with the place and the fix.
    """
    wanted = None if languages is None else frozenset(languages)
    if source.path == PHRASEBOOK:
        for meaning in load_phrasebook().train:
            yield from _ring_pairs(meaning.texts, wanted, group=f"{PHRASEBOOK}:{meaning.id}", where=f"{PHRASEBOOK}:{meaning.id}")
        return
    _check_mapping(source.columns, PAIR_COLUMNS, source.path)
    fixed = (_fixed_language(source, 0), _fixed_language(source, 1))
    for where, record in _pair_records(source) if records is None else records:
        row = _mapped(record, source.columns)
        texts = row.get("texts", row.get("translation"))
        if isinstance(texts, Mapping):
            yield from _multiway(texts, row, fixed, wanted, where)
        elif is_missing(texts) and ("texts" in row or "translation" in row) and "src" not in row:
            yield Dropped(Reason.EMPTY, "", where)
        else:
            yield _pair(row, record, fixed, wanted, where)


def read_instructions(
    source: InstructionSource, languages: Iterable[str] | None = None, records: Iterable[Record] | None = None
) -> Iterator[Instruction | Dropped]:
    """Instructions of one source; only those in `languages` (or of unknown language) where given; `records` in place of its file's.

    Raises:
        UserError: as `read_pairs`.
    """
    wanted = None if languages is None else frozenset(languages)
    if source.path == PHRASEBOOK:
        rows: Iterator[Instruction] = iter(load_phrasebook().instructions)
    else:
        rows = _instructions(source, records)
    for row in rows:
        if wanted is not None and row.lang is not None and row.lang not in wanted:
            yield Dropped(Reason.LANGUAGE, row.text, row.where)
        elif not row.instruction or not row.output:
            yield Dropped(Reason.EMPTY, row.text, row.where)
        elif is_broken(row.text):
            yield Dropped(Reason.BROKEN, row.text, row.where)
        else:
            yield row


def read_meanings(path: str, dropped: DroppedRows | None = None) -> list[Meaning]:
    """Sentences in several languages: JSON lines with `texts: {lang: text}` and optionally `id`.

    Args:
        dropped: takes the texts that cannot be used, and why.

    Raises:
        UserError: as `read_pairs`; also no usable text at all.
    """
    dropped = DroppedRows() if dropped is None else dropped
    meanings = []
    for where, record in jsonl_records(path):
        texts = record.get("texts")
        if not isinstance(texts, Mapping):
            raise UserError(no_column("texts", record, where))
        clean, unusable = _by_language(texts, where)
        unusable += [Dropped(Reason.BROKEN, text, where) for text in clean.values() if is_broken(text)]
        usable = {lang: text for lang, text in clean.items() if not is_broken(text)}
        if usable:
            meanings.append(Meaning(id_of(record.get("id")) or id_of(record.get("gid")) or where, usable))
        for row in unusable or ([] if usable else [Dropped(Reason.EMPTY, "", where)]):
            dropped.add(row)
    if not meanings:
        reasons = ", ".join(f"{count} texts: {reason}" for reason, count in dropped.by_reason().items())
        raise UserError(
            f"{path} holds no rows{f' with a usable text ({reasons})' if reasons else ''}. Give one JSON object with `texts` on each "
            "line, or leave data.evaluation unset."
        )
    return meanings


def ring(languages: Iterable[str], key: str) -> list[tuple[str, str]]:
    """Pairs that lead once around `languages`, in an order drawn from `key`.

    Every sentence of a meaning is used exactly twice, as a source and as a target, and over many meanings all pairs of
    languages get the same share; all pairs of a meaning would grow with the square of its languages.
    """
    order = sorted(languages)
    random.Random(zlib.crc32(key.encode(errors="surrogatepass"))).shuffle(order)
    return list(pairwise(order)) if len(order) < 3 else list(pairwise([*order, order[0]]))


def _pair_records(source: ParallelSource) -> Iterator[Record]:
    kind: str = source.format
    if kind == "auto":
        kind = "moses" if source.target_path else _kind(source.path, ("jsonl", "tsv", "csv", "parquet", "tmx"))
    if kind == "moses":
        if source.target_path is None:
            raise UserError(f"{source.path}: line-aligned text needs its second file. Set target_path.")
        return aligned_records(source.path, source.target_path)
    if kind == "tsv":
        return tsv_records(source.path, source.columns)
    if kind == "hf":
        return hub_records(source.path, source.subset, source.split)
    return RECORDS[kind](source.path)


def _kind(path: str, known: tuple[str, ...]) -> str:
    """The format that a path's name tells."""
    if not path.strip():
        raise UserError("The path of a source is empty: name a file, a folder or a Hugging Face dataset.")
    last = Path(uncompressed_name(path)).suffix.lower().lstrip(".")
    last = {"ndjson": "jsonl", "json": "jsonl"}.get(last, last)
    file = local(path)
    if is_prepared(file):
        return "prepared"
    if last in known:
        return last
    if os.path.isdir(file):
        return "hf"
    if path.startswith("builtin:"):
        raise UserError(f"No data set {path}. The built-in one is {PHRASEBOOK}.")
    if os.path.isfile(file):
        raise UserError(f"{path}: the name does not tell the format. Set format to one of {', '.join(known)}, hf.")
    if os.path.isdir(file.parent) and str(file.parent) != ".":
        return "jsonl"  # its reader names the nearest file of that folder
    raise UserError(f"No file {path}. Check the path, or set format: hf if it is the name of a Hugging Face dataset.")


def _check_mapping(columns: dict[str, str], ours: tuple[str, ...], path: str) -> None:
    for name in columns:
        if name not in ours:
            near = difflib.get_close_matches(name, ours, n=1, cutoff=0.3)
            hint = f"Did you mean {{{near[0]}: {columns[name]}}}?" if near else "Left stands our name, right yours."
            raise UserError(f"{path}: columns maps `{name}`, which is none of {', '.join(ours)}. {hint}")


def _mapped(record: Row, columns: dict[str, str]) -> Row:
    """The record by our names; a mapped name is taken from its column alone."""
    if not columns:
        return record
    return {name: value for name, value in record.items() if name not in columns} | {
        ours: record[theirs] for ours, theirs in columns.items() if theirs in record
    }


def _fixed_language(source: ParallelSource, side: int) -> str | None:
    """The source's language of one side; for line-aligned files also read off an ending such as train.de."""
    code = source.src_lang if side == 0 else source.tgt_lang
    if code is None and source.target_path is not None:
        ending = Path(uncompressed_name([source.path, source.target_path][side])).suffix.lstrip(".")
        if ending not in NAMES:  # not check_language: "txt" is a language of Papua
            raise UserError(f"{source.path}: line-aligned files do not say their languages. Set src_lang and tgt_lang.")
        return ending
    return None if code is None else language_of(code, source.path)


def _pair(row: Row, record: Row, fixed: Languages, wanted: frozenset[str] | None, where: str) -> Pair | Dropped:
    src, tgt = (required(row, record, name, where) for name in ("src", "tgt"))
    codes = [
        given if given is not None and is_missing(row.get(name)) else language_of(required(row, record, name, where), where)
        for name, given in zip(("src_lang", "tgt_lang"), fixed, strict=True)
    ]
    return _checked(codes[0], codes[1], src, tgt, group_of(row), where, wanted)


def _multiway(
    texts: Mapping[str, object], row: Row, fixed: Languages, wanted: frozenset[str] | None, where: str
) -> Iterator[Pair | Dropped]:
    clean, twice = _by_language(texts, where)
    yield from twice
    src_lang, tgt_lang = fixed
    if src_lang is not None and tgt_lang is not None:
        yield _checked(src_lang, tgt_lang, clean.get(src_lang, ""), clean.get(tgt_lang, ""), group_of(row), where, wanted)
        return
    own = id_of(row.get("id"))
    group = group_of(row) or (where if own is None else f"{where.rpartition(':')[0]}#{own}")
    yield from _ring_pairs(clean, wanted, group=group, where=where)


def _by_language(texts: Mapping[str, object], where: str) -> tuple[dict[str, str], list[Dropped]]:
    """Texts by canonical code, and those that come second in their language, such as under `de` and `deu`.

    Missing and blank values are no texts: Hugging Face fills up the languages that a row lacks.
    """
    clean: dict[str, str] = {}
    twice = []
    for code, value in texts.items():
        if is_missing(value):
            continue
        lang, text = language_of(code, where), text_of(value, "texts", where)
        if lang in clean:
            twice.append(Dropped(Reason.TWICE, text, where))
        else:
            clean[lang] = text
    return clean, twice


def _ring_pairs(texts: dict[str, str], wanted: frozenset[str] | None, *, group: str, where: str) -> Iterator[Pair | Dropped]:
    chosen = [lang for lang in texts if texts[lang] and (wanted is None or lang in wanted)]
    if len(chosen) < 2:
        reason = Reason.EMPTY if sum(map(bool, texts.values())) < 2 else Reason.LANGUAGE
        yield Dropped(reason, " | ".join(texts.values()), where)
        return
    for src_lang, tgt_lang in ring(chosen, group):
        yield _checked(src_lang, tgt_lang, texts[src_lang], texts[tgt_lang], group, where, wanted)


def _checked(
    src_lang: str, tgt_lang: str, src: str, tgt: str, group: str | None, where: str, wanted: frozenset[str] | None
) -> Pair | Dropped:
    reason = None
    if wanted is not None and not (src_lang in wanted and tgt_lang in wanted):
        reason = Reason.LANGUAGE
    elif not src or not tgt:
        reason = Reason.EMPTY
    elif src == tgt:
        reason = Reason.SAME
    elif is_broken(src + tgt):
        reason = Reason.BROKEN
    if reason is not None:
        return Dropped(reason, f"{src} | {tgt}", where)
    return Pair(src_lang, tgt_lang, src, tgt, group, where)


def _instructions(source: InstructionSource, records: Iterable[Record] | None) -> Iterator[Instruction]:
    _check_mapping(source.columns, INSTRUCTION_COLUMNS, source.path)
    fixed = None if source.lang is None else language_of(source.lang, source.path)
    for where, record in _instruction_records(source) if records is None else records:
        row = _mapped(record, source.columns)
        lang = fixed if is_missing(row.get("lang")) else language_of(row["lang"], where)
        yield Instruction(
            instruction=required(row, record, "instruction", where),
            input=text_of(row.get("input") or "", "input", where),
            output=required(row, record, "output", where),
            lang=lang,
            where=where,
            group=group_of(row),
        )


def _instruction_records(source: InstructionSource) -> Iterator[Record]:
    kind: str = _kind(source.path, ("jsonl",)) if source.format == "auto" else source.format
    if kind == "prepared":
        return prepared_records(source.path, INSTRUCTIONS)
    return jsonl_records(source.path) if kind == "jsonl" else hub_records(source.path, source.subset, source.split)
