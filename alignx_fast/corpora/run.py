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
from alignx_fast.corpora.filters import macros
from alignx_fast.corpora.narrow import Narrowing
from alignx_fast.corpora.parts import PARTS, clean_sources, part_files
from alignx_fast.corpora.progress import Progress, estimate
from alignx_fast.corpora.select import MEANINGS_SQL, choose_sql, find_meanings
from alignx_fast.corpora.sources import Reading, own_files, sentences
from alignx_fast.corpora.steps import Steps, fingerprint
from alignx_fast.corpora.testsets import TestSets
from alignx_fast.corpora.write import write_pairs, write_sql
from alignx_fast.data.languages import check_language
from alignx_fast.data.prepared import CARD_FILE, FAILED, PAIRS, PASSED
from alignx_fast.errors import UserError
from alignx_fast.files import read_object, write_json, write_text

log = logging.getLogger(__name__)
WORK = "work"
PLAN_FILE = "plan.sql"
DISK_PER_BYTE = 2.5
"""Bytes on the disk at most for every byte of plain text: the parts, the engine's tables and the finished files."""


def prepare(settings: Settings) -> Path:
    """Make the folder `settings.corpus.output`, or go on where an earlier start was stopped; its path.

    Raises:
        UserError: a source or the disk does not allow it.
    """
    began = time.monotonic()
    corpus, output = settings.corpus, settings.corpus.output
    readings = [reading for source in corpus.sources for reading in own_files(source)]
    tested = [reading for source in corpus.test_sets for reading in own_files(source)]
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
    clean_sources(readings, _with_languages(settings), settings.seed, tests, steps, Progress(readings))
    card = {"fingerprint": print_} | _select_and_write(settings, readings, tests, steps)
    write_json(output / CARD_FILE, card | {"seconds": round(time.monotonic() - began, 1)})
    shutil.rmtree(steps.work)
    return output


def _select_and_write(settings: Settings, readings: Sequence[Reading], tests: TestSets, steps: Steps) -> dict[str, Any]:
    corpus, output = settings.corpus, settings.corpus.output
    reports = [steps.done[f"clean {number}"] for number in range(len(readings))]
    parts = part_files(steps.work)
    if not parts:
        raise UserError(f"{output}: no row of the sources can be used. {_reasons(unusable_drops(reports))}")
    database = steps.work / "index.duckdb"
    database.unlink(missing_ok=True)
    with connect(corpus, steps.work / "scratch", database) as engine:
        narrowing = Narrowing(engine, str(steps.work / PARTS / "*" / "*.parquet"))
        read, filtered = narrowing.read(), narrowing.filtered()
        narrowing.select(corpus, readings)
        drops = [*unusable_drops(reports), *map(drop_entry, [*filtered, *narrowing.drops])]
        if not sum(narrowing.counts.values()):
            raise UserError(f"{output}: no row is left. {_reasons(drops)} Each filter can be switched off under corpus.filters.")
        rounds = find_meanings(engine)
        engine.execute(choose_sql(corpus))
        shutil.rmtree(output / PAIRS, ignore_errors=True)
        lengths = write_pairs(engine, parts, output / PAIRS)
        meanings, largest = engine.execute(
            "SELECT count(*), max(rows) FROM (SELECT count(*) AS rows FROM chosen GROUP BY meaning)"
        ).fetchall()[0]
        leaks = _leaks(engine, tests)
    languages = languages_entry(read, narrowing.counts)
    plan = [
        *macros(list(languages)),
        clean_sql(corpus.filters),
        *narrowing.plan,
        *MEANINGS_SQL,
        choose_sql(corpus),
        write_sql(parts[0]),
    ]
    write_text(output / PLAN_FILE, "".join(f"{statement};\n\n" for statement in plan))
    files = sorted((output / PAIRS).glob("*.arrow"))
    return {
        "rows": {"read": sum(map(rows_of, reports)), "kept": sum(narrowing.counts.values())},
        "meanings": {"count": meanings, "largest": largest, "rounds": rounds},
        "drops": drops,
        "directions": {name: {"read": rows, "kept": narrowing.counts.get(name, 0)} for name, rows in read.items()},
        "languages": languages,
        "lengths": lengths,
        "leak": leaks,
        "sources": [source_entry(reading, report) for reading, report in zip(readings, reports, strict=True)],
        "settings": settings_entry(settings),
        "versions": versions(),
        "files": {f"{PAIRS}/{file.name}": file.stat().st_size for file in files},
        "hashes": {f"{PAIRS}/{file.name}": file_hash(file) for file in files},
    }


def _leaks(engine: Any, tests: TestSets) -> dict[str, Any]:
    """Rows that were chosen and hold a sentence of a test set: none, or something is wrong."""
    engine.register("test_keys", tests.table())
    sql = "SELECT count(*) FROM kept WHERE key_src IN (SELECT key FROM test_keys) OR key_tgt IN (SELECT key FROM test_keys)"
    found = int(engine.execute(sql).fetchone()[0])
    return {"check": FAILED if found else PASSED, "rows_found": found, "sentences": tests.counts}


def _with_languages(settings: Settings) -> Any:
    languages = settings.corpus.languages
    return settings.corpus.model_copy(
        update={"languages": None if languages is None else sorted({check_language(code) for code in languages})}
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
