"""`alignx-fast prepare`: sources -> clean parts -> duplicates, meanings, shares -> Arrow files and the card."""

import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignx_fast.config import Settings
from alignx_fast.corpora.card import (
    drop_entry,
    file_hash,
    languages_entry,
    rows_of,
    settings_entry,
    source_entry,
    unusable_drops,
    versions,
)
from alignx_fast.corpora.clean import clean_sql
from alignx_fast.corpora.engine import connect
from alignx_fast.corpora.expand import expand
from alignx_fast.corpora.filters import macros
from alignx_fast.corpora.instructions import write_instructions
from alignx_fast.corpora.narrow import Narrowing
from alignx_fast.corpora.page import write_page
from alignx_fast.corpora.parts import PARTS, TASKS, clean_pivoted, clean_sources, part_files
from alignx_fast.corpora.progress import Progress, estimate
from alignx_fast.corpora.select import MEANINGS_SQL, choose_sql, find_meanings
from alignx_fast.corpora.settings import CorpusSettings
from alignx_fast.corpora.sources import Reading, sentences
from alignx_fast.corpora.steps import Steps, fingerprint
from alignx_fast.corpora.testsets import TestSets
from alignx_fast.corpora.write import write_pairs, write_sql
from alignx_fast.data.languages import check_language
from alignx_fast.data.prepared import CARD_FILE, FAILED, INSTRUCTIONS, PAIRS, PASSED
from alignx_fast.errors import UserError
from alignx_fast.files import read_object, write_json, write_text

log = logging.getLogger(__name__)
WORK, ARCHIVES = "work", "archives"
PLAN_FILE = "plan.sql"
DISK_PER_BYTE = 2.5
"""Bytes on the disk at most for every byte of plain text: the parts, the engine's tables and the finished files."""


def prepare(settings: Settings) -> Path:
    """Make the folder `settings.corpus.output`, or go on where an earlier start was stopped; its path.

    Raises:
        UserError: a source or the disk does not allow it.
    """
    began = time.monotonic()
    corpus = _with_languages(settings.corpus)
    output, languages = corpus.output, None if corpus.languages is None else frozenset(corpus.languages)
    readings = expand(corpus.sources, languages, output / ARCHIVES)
    tested = expand(corpus.test_sets, None, output / ARCHIVES)
    if not readings:
        raise UserError("corpus.sources is empty: name the files or data sets to prepare.")
    print_ = fingerprint(corpus, settings.seed, [*readings, *tested])
    if (read_object(output / CARD_FILE) or {}).get("fingerprint") == print_:
        log.info("%s is prepared already, from the same sources and settings.", output)
        return output
    _check_space(output, readings)
    steps = Steps(output / WORK, print_)
    (output / CARD_FILE).unlink(missing_ok=True)
    tests = TestSets({reading.title: sentences(reading) for reading in tested}, corpus.filters.near_leaks)
    clean_sources(readings, corpus, settings.seed, tests, steps, Progress(readings))
    if corpus.pivoting:
        readings.append(Reading(f"through {corpus.pivot}", licence="of the sources"))
        clean_pivoted(len(readings) - 1, corpus, settings.seed, tests, steps)
    card = {"fingerprint": print_} | _select_and_write(settings, readings, tests, steps)
    write_page(card, output)
    write_json(output / CARD_FILE, card | {"seconds": round(time.monotonic() - began, 1)})
    shutil.rmtree(steps.work)
    shutil.rmtree(output / ARCHIVES, ignore_errors=True)
    return output


def _select_and_write(settings: Settings, readings: Sequence[Reading], tests: TestSets, steps: Steps) -> dict[str, Any]:
    output = settings.corpus.output
    reports = [steps.done[f"clean {number}"] for number in range(len(readings))]
    unusable = unusable_drops(reports)
    card: dict[str, Any] = {
        "rows": {"read": sum(map(rows_of, reports)), "kept": 0, "instructions": 0},
        "meanings": {"count": 0, "largest": 0, "rounds": 0},
        "drops": unusable,
        "directions": {},
        "languages": {},
        "lengths": {},
        "leak": {"check": PASSED, "rows_found": 0, "sentences": tests.counts},
        "sources": [source_entry(reading, report) for reading, report in zip(readings, reports, strict=True)],
        "settings": settings_entry(settings),
        "versions": versions(),
    }
    pairs, tasks = part_files(steps.work), part_files(steps.work, TASKS)
    for kind in (PAIRS, INSTRUCTIONS):
        shutil.rmtree(output / kind, ignore_errors=True)
    if pairs:
        _pairs(settings.corpus, readings, tests, steps.work, pairs, card)
        if not tasks:
            _check_languages(settings.corpus, sorted(card["languages"]))
    if tasks:
        with connect(settings.corpus, steps.work / "scratch") as engine:
            card["rows"]["instructions"], dropped = write_instructions(engine, tasks, output / INSTRUCTIONS)
        card["drops"] = [*card["drops"], *map(drop_entry, dropped)]
    if not card["rows"]["kept"] + card["rows"]["instructions"]:
        raise UserError(f"{output}: no row is left. {_reasons(card['drops'])} Filters can be switched off under corpus.filters.")
    files = sorted(file for kind in (PAIRS, INSTRUCTIONS) for file in (output / kind).glob("*.arrow"))
    card["files"] = {file.relative_to(output).as_posix(): file.stat().st_size for file in files}
    card["hashes"] = {file.relative_to(output).as_posix(): file_hash(file) for file in files}
    return card


def _pairs(
    corpus: CorpusSettings, readings: Sequence[Reading], tests: TestSets, work: Path, parts: list[Path], card: dict[str, Any]
) -> None:
    """Select the pairs and write them; what the card says of them."""
    database = work / "index.duckdb"
    database.unlink(missing_ok=True)
    with connect(corpus, work / "scratch", database) as engine:
        narrowing = Narrowing(engine, str(work / PARTS / "*" / "*.parquet"))
        read, filtered = narrowing.read(), narrowing.filtered()
        narrowing.select(corpus, readings)
        rounds = find_meanings(engine)
        engine.execute(choose_sql(corpus))
        card["lengths"] = write_pairs(engine, parts, corpus.output / PAIRS)
        count, largest = engine.execute(
            "SELECT count(*), coalesce(max(rows), 0) FROM (SELECT count(*) AS rows FROM chosen GROUP BY meaning)"
        ).fetchall()[0]
        card["leak"] |= _leaks(engine, tests)
    card["rows"]["kept"] = sum(narrowing.counts.values())
    card["meanings"] = {"count": count, "largest": largest, "rounds": rounds}
    card["drops"] = [*card["drops"], *map(drop_entry, [*filtered, *narrowing.drops])]
    card["directions"] = {name: {"read": rows, "kept": narrowing.counts.get(name, 0)} for name, rows in read.items()}
    card["languages"] = languages_entry(read, narrowing.counts)
    plan = [
        *macros(list(card["languages"])),
        clean_sql(corpus.filters),
        *narrowing.plan,
        *MEANINGS_SQL,
        choose_sql(corpus),
        write_sql(parts[0]),
    ]
    write_text(corpus.output / PLAN_FILE, "".join(f"{statement};\n\n" for statement in plan))


def _leaks(engine: Any, tests: TestSets) -> dict[str, Any]:
    """Rows that were chosen and hold a sentence of a test set: none, or something is wrong."""
    engine.register("test_keys", tests.table())
    sql = "SELECT count(*) FROM kept WHERE key_src IN (SELECT key FROM test_keys) OR key_tgt IN (SELECT key FROM test_keys)"
    found = int(engine.execute(sql).fetchone()[0])
    return {"check": FAILED if found else PASSED, "rows_found": found}


def _with_languages(corpus: CorpusSettings) -> CorpusSettings:
    """The settings with languages in our spelling."""
    if corpus.languages is None:
        return corpus
    return corpus.model_copy(update={"languages": sorted({check_language(code) for code in corpus.languages})})


def _check_languages(corpus: CorpusSettings, found: Sequence[str]) -> None:
    """Refuse a language that is asked for and stands in no row."""
    for language in _with_languages(corpus).languages or ():
        if language not in found:
            raise UserError(
                f"No row of the sources is between {language} and another language of corpus.languages; there are rows in {', '.join(found)}. "
                f"Leave {language} out, or add a source that has it."
            )


def _reasons(drops: Sequence[dict[str, Any]]) -> str:
    return "Dropped: " + (", ".join(f"{drop['rows']} {drop['reason']}" for drop in drops) or "nothing") + "."


def _check_space(output: Path, readings: Sequence[Reading]) -> None:
    """Refuse to start where the disk is too small by the estimate."""
    output.mkdir(parents=True, exist_ok=True)
    needed = int(DISK_PER_BYTE * sum(estimate(file)[0] for reading in readings for file in reading.files))
    free = shutil.disk_usage(output).free
    if needed > free:
        raise UserError(
            f"{output} needs about {needed / 1e9:,.1f} GB of disk and {free / 1e9:,.1f} GB are free: free some, or set corpus.output to another disk."
        )
