"""How far an evaluation is: a bar on a terminal, plain lines elsewhere."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

log = logging.getLogger(__name__)

Advance = Callable[[int], None]
"""Called with the number of items that are done since the last call."""
Show = Callable[[str, int], AbstractContextManager[Advance]]
"""Shows the progress of one part, from its title and its number of items."""
SECONDS_BETWEEN_LINES = 15.0


def not_shown(title: str, total: int) -> AbstractContextManager[Advance]:
    """Nothing is shown."""
    return nullcontext(lambda count: None)


@contextmanager
def shown(title: str, total: int) -> Iterator[Advance]:
    """Show the progress of one part of `total` items, with the time left."""
    if sys.stdout.isatty():
        columns = (TextColumn("  {task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=Console(), transient=True) as bar:
            task = bar.add_task(title, total=total)
            yield lambda count: bar.advance(task, count)
    else:
        yield _Lines(title, total)


class _Lines:
    """A line at once, and then one every quarter of a minute."""

    def __init__(self, title: str, total: int) -> None:
        self.title, self.total, self.done = title, total, 0
        self.started = self.said = time.monotonic()
        log.info("  %s, %s", title, f"{total:,}")

    def __call__(self, count: int) -> None:
        self.done += count
        now = time.monotonic()
        if now - self.said < SECONDS_BETWEEN_LINES:
            return
        self.said = now
        seconds = (now - self.started) / max(1, self.done) * (self.total - self.done)
        log.info("  %s, %s of %s, %d:%02d left", self.title, f"{self.done:,}", f"{self.total:,}", seconds // 60, seconds % 60)
