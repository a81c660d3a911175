"""From settings to datasets of tokens and spans, kept between runs."""

import atexit
import json
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import datasets
from transformers import PreTrainedTokenizerBase

from alignx_fast.config import Settings
from alignx_fast.data.cache import NotWritableError, building, damage, fingerprint, finish, set_aside
from alignx_fast.data.encode import Encoder
from alignx_fast.data.entries import KEEP_BYTES, KEEP_SECONDS, hold, hold_partial, partial_name, remove_old
from alignx_fast.data.gather import gather
from alignx_fast.data.rows import Meaning
from alignx_fast.data.spans import bos_ids, closing_id
from alignx_fast.data.summary import Summary, per_language, split_summary
from alignx_fast.data.templates import choose
from alignx_fast.errors import UserError, first_line
from alignx_fast.stages import Stage

log = logging.getLogger(__name__)

ATTEMPTS = 4
"""Times that an entry is built which cannot be read afterwards: another process may have removed it, or the disk loses what it is given."""


@dataclass
class Prepared:
    """A stage's data."""

    train: datasets.Dataset
    """Columns as in `Example`."""
    dev: datasets.Dataset
    languages: list[str]
    """Sorted codes; `src_lang` and `tgt_lang` are indices into it."""
    summary: Summary
    """Rows read, kept and dropped by reason; rows and tokens per language; lengths."""
    dropped_file: Path | None
    """JSON lines {where, reason, text} of every dropped row that something is wrong with; None where there is none."""
    eval_meanings: list[Meaning]
    """Held-out sentences in several languages; none of their texts is in train."""
    from_cache: bool


def prepare(settings: Settings, tokenizer: PreTrainedTokenizerBase, stage: Stage) -> Prepared:
    """Read, clean, split and tokenise the rows of one stage, or load them as an earlier run left them.

    Every file of a cache entry is compared with its hash when it is read; a damaged entry is named and built again. Where the cache cannot be
    written, what it lacks is built in a temporary folder that is removed when the process ends.

    Raises:
        UserError: a source cannot be read, the tokenizer or its chat template cannot be used, or no usable row is left.
    """
    folder = _cache_folder(settings) / f"{stage}-{fingerprint(settings, tokenizer, stage)}"
    prepared = _read(folder, settings, from_cache=True)
    for _ in range(ATTEMPTS):
        if prepared is not None:
            return prepared
        try:
            with building(folder) as partial:
                with _scratch(folder.parent) as scratch:
                    _build(partial, scratch, settings, tokenizer, stage)
                finish(partial, folder.name)
        except NotWritableError as error:
            folder = _temporary_cache() / folder.name
            log.warning("%s Until then, the data of this run is made anew in %s.", error, folder.parent)
            prepared = _read(folder, settings, from_cache=True)
            continue
        for entry in remove_old(folder.parent, KEEP_BYTES, KEEP_SECONDS):
            if entry.finished:
                log.info("Cache entry %s was not used for long, and is removed.", entry.folder)
        prepared = _read(folder, settings, from_cache=False)
    if prepared is None:
        raise UserError(f"{folder.parent} does not keep what is written to it: set data.cache_dir to a folder on another disk.")
    return prepared


@contextmanager
def _scratch(cache: Path) -> Iterator[Path]:
    """A folder beside the entry that is being built, for the texts and tokens of large data; no part of what is kept."""
    with TemporaryDirectory(prefix=partial_name(), dir=cache, ignore_cleanup_errors=True) as name:
        hold_partial(Path(name))
        yield Path(name)


def _cache_folder(settings: Settings) -> Path:
    try:
        return settings.data.cache_dir.expanduser()
    except RuntimeError:  # a user without a home
        folder = _temporary_cache()
        log.warning("There is no home folder for %s: data is kept in %s for this run alone.", settings.data.cache_dir, folder)
        return folder


@cache
def _temporary_cache() -> Path:
    """A folder that is removed when the process ends.

    Raises:
        UserError: no temporary folder can be written.
    """
    try:
        folder = TemporaryDirectory(prefix="alignx-fast-", ignore_cleanup_errors=True)
    except OSError as error:
        reason = (error.strerror or str(error)).rstrip(".")
        raise UserError(f"Neither the cache nor a temporary folder can be written ({reason}): set data.cache_dir.") from None
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _read(folder: Path, settings: Settings, *, from_cache: bool) -> Prepared | None:
    """A finished entry; None where there is none, or it is damaged, which is named."""
    if not os.path.lexists(folder):
        return None
    hold(folder, str(settings.output))
    reason = damage(folder)
    if reason is None:
        try:
            return _load(folder, from_cache=from_cache)
        except MemoryError:
            raise
        except Exception as error:  # datasets and pyarrow have many of their own
            reason = f"it cannot be read ({first_line(error).rstrip('.')})"
    if os.path.lexists(folder):  # else it was removed meanwhile
        log.warning("Cache entry %s is damaged, and is built again: %s.", folder, reason)
        set_aside(folder)
    return None


def _load(folder: Path, *, from_cache: bool) -> Prepared:
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
        from_cache=from_cache,
    )


def _build(folder: Path, scratch: Path, settings: Settings, tokenizer: PreTrainedTokenizerBase, stage: Stage) -> None:
    """Fill an entry; `scratch` takes what is needed meanwhile."""
    began = time.monotonic()
    template = choose(settings.data.template, tokenizer)
    gathered = gather(settings, stage, scratch)
    languages = sorted(gathered.train.rows.languages() | gathered.dev.rows.languages())
    encoder = Encoder(tokenizer, template, settings.data.max_length, {lang: i for i, lang in enumerate(languages)})
    train = encoder.encode(gathered.train, gathered.dropped, f"Tokenising {stage}", scratch)
    dev = encoder.encode(gathered.dev, gathered.dropped, "Tokenising dev", scratch)
    if not len(train):
        raise UserError(f"Every row of stage {stage} is cut off at {settings.data.max_length} tokens. Raise data.max_length.")
    summary: Summary = {
        "stage": stage,
        "rows_read": gathered.rows_read,
        "rows_reversed": gathered.rows_reversed,
        "dropped": gathered.dropped.by_reason(),
        "train": split_summary(train, settings.data.max_length, closing_id(tokenizer, template)),
        "dev": split_summary(dev, settings.data.max_length, closing_id(tokenizer, template)),
        "languages": per_language(train, languages),
        "eval_meanings": len(gathered.evaluation),
        "eval_texts_dropped": gathered.evaluation_dropped.by_reason(),
        "template": template.name,
        "begins_with": str(tokenizer.decode(bos_ids(tokenizer))),
        "ends_with": str(tokenizer.decode([closing_id(tokenizer, template)])),
        "seconds": round(time.monotonic() - began, 1),
    }
    _save(train, folder / "train")
    _save(dev, folder / "dev")
    (folder / "summary.json").write_text(json.dumps(summary, ensure_ascii=False, indent=1), encoding="utf-8")
    (folder / "eval_meanings.json").write_text(
        json.dumps([asdict(meaning) for meaning in gathered.evaluation], ensure_ascii=False), encoding="utf-8"
    )
    listed = [*gathered.dropped.listed, *gathered.evaluation_dropped.listed]
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
        data.save_to_disk(str(folder), num_shards=None if len(data) else 1)  # without a file it could not be read again
    finally:
        if not were_off:
            datasets.enable_progress_bars()
