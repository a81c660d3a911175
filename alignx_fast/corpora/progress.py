"""How far a preparation is: rows a second and time left, from a sample of each file."""

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from alignx_fast.corpora.sources import Reading
from alignx_fast.data.opening import DAMAGED, open_bytes

SAMPLE = 1 << 20
"""Bytes of a file that are looked at to estimate how many lines it has."""
EXPANSION = {".gz": 3.5, ".bz2": 4.5, ".xz": 4.5, ".zst": 4.0}
"""Bytes that a byte of compressed text becomes, roughly."""


class Progress:
    """A bar on standard error over the rows of all sources."""

    def __init__(self, readings: Sequence[Reading]) -> None:
        self.estimates = {reading.title: sum(estimate(file)[1] for file in reading.files[:1]) for reading in readings}
        self.total = sum(self.estimates.values())
        self.done = 0

    def skip(self, reading: Reading) -> None:
        """Leave out a source that is done."""
        self.total -= self.estimates[reading.title]

    @contextlib.contextmanager
    def of(self, reading: Reading) -> Iterator[Callable[[int], None]]:
        """A function to call with the rows of a source that are done."""
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f} rows"),
            TextColumn("{task.fields[rate]:,.0f} rows/s"),
        )
        began, estimated = time.monotonic(), self.estimates[reading.title]
        rows = 0

        with Bar(
            *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()
        ) as bar:
            task = bar.add_task(f"Cleaning {Path(reading.title).name}", total=self.total or None, completed=self.done, rate=0)

            def advance(count: int) -> None:
                nonlocal rows
                rows = count
                bar.update(task, completed=self.done + count, rate=count / (time.monotonic() - began))

            yield advance
        self.done += rows
        self.total += rows - estimated


def estimate(file: Path) -> tuple[int, int]:
    """Bytes uncompressed and rows of a file, by its beginning; what is wrong with a damaged one its reader says, with the place."""
    try:
        if file.suffix == ".parquet":
            import pyarrow.parquet as pq

            parquet = pq.ParquetFile(file).metadata
            return sum(parquet.row_group(i).total_byte_size for i in range(parquet.num_row_groups)), parquet.num_rows
        with open_bytes(file) as stream:
            head = stream.read(SAMPLE)
    except (*DAMAGED, OSError, ValueError):  # Arrow's errors are of the last two
        return file.stat().st_size, 0
    size = len(head) if len(head) < SAMPLE else int(file.stat().st_size * EXPANSION.get(file.suffix, 1.0))
    return size, head.count(b"\n") * size // max(1, len(head))
