"""Every source read and cleaned, part by part: one thread reads the next part while the others clean."""

import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from alignx_fast.corpora.batches import Unusable, batches
from alignx_fast.corpora.clean import clean
from alignx_fast.corpora.engine import connect
from alignx_fast.corpora.instructions import read_instructions
from alignx_fast.corpora.pivoting import pivoted
from alignx_fast.corpora.progress import Progress
from alignx_fast.corpora.settings import CorpusSettings
from alignx_fast.corpora.sources import Reading
from alignx_fast.corpora.steps import Steps
from alignx_fast.corpora.testsets import TestSets

if TYPE_CHECKING:
    import pyarrow as pa

PARTS, TASKS = "parts", "tasks"
"""Folders of the cleaned pairs and of the instructions."""


def part_files(work: Path, kind: str = PARTS) -> list[Path]:
    """The parts of all sources, in order."""
    return sorted((work / kind).glob("*/*.parquet"))


def clean_sources(
    readings: Sequence[Reading], settings: CorpusSettings, seed: int, tests: TestSets, steps: Steps, progress: Progress
) -> None:
    """Read and clean every source that an earlier start did not finish."""
    languages = None if settings.languages is None else frozenset(settings.languages)
    for number, reading in enumerate(readings):
        step = f"clean {number}"
        if step in steps.done:
            progress.skip(reading)
            continue
        began, unusable = time.monotonic(), Unusable()
        name, pairs, tasks = f"{number:04d}", 0, 0
        if reading.instructions is not None:
            tasks = read_instructions(reading, number, languages, seed, tests, steps.work / TASKS / name, unusable)
        if reading.pairs is not None:
            with progress.of(reading) as advance:
                found = batches(reading.read_pairs(languages), number, seed, unusable)
                for batch in _cleaned(found, steps.work / PARTS / name, settings, tests):
                    pairs += len(batch)
                    advance(pairs + unusable.counts.total())
        steps.finish(step, {"title": reading.title, "pairs": pairs, "tasks": tasks, "unusable": unusable.report()}, began)


def clean_pivoted(number: int, settings: CorpusSettings, seed: int, tests: TestSets, steps: Steps) -> None:
    """Make pairs through the pivot of what was cleaned, as the rows of one more source, and clean them too."""
    if f"clean {number}" in steps.done:
        return
    began, pairs = time.monotonic(), 0
    name = f"{number:04d}"
    parts = [part for part in part_files(steps.work) if part.parent.name != name]
    with connect(settings, steps.work / "scratch") as engine:
        found = batches(pivoted(engine, parts, settings.pivot), number, seed, Unusable()) if parts else iter(())
        for batch in _cleaned(found, steps.work / PARTS / name, settings, tests):
            pairs += len(batch)
    report = {"title": f"through {settings.pivot}", "pairs": pairs, "tasks": 0, "unusable": Unusable().report()}
    steps.finish(f"clean {number}", report, began)


def _cleaned(found: "Iterator[pa.Table]", folder: Path, settings: CorpusSettings, tests: TestSets) -> "Iterator[pa.Table]":
    """The batches, each once it has been cleaned; a few are under way at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    workers = max(1, (settings.threads or 2) - 1)
    with ThreadPoolExecutor(workers) as pool:
        under_way: deque[tuple[Future[None], pa.Table]] = deque()
        for number, batch in enumerate(found):
            part = folder / f"{number:06d}.parquet"
            under_way.append((pool.submit(_clean_one, batch, tests, settings, part), batch))
            if len(under_way) > workers:
                yield _result(*under_way.popleft())
        while under_way:
            yield _result(*under_way.popleft())


def _result(future: "Future[None]", batch: "pa.Table") -> "pa.Table":
    future.result()
    return batch


def _clean_one(batch: "pa.Table", tests: TestSets, settings: CorpusSettings, part: Path) -> None:
    if not part.exists():
        with connect(settings, part.parent / "scratch", threads=1) as engine:
            clean(engine, batch, tests, settings.filters, part)
