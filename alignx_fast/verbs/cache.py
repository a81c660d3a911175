"""`alignx-fast cache`: what is kept of tokenised data, and which of it is removed."""

import re
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from alignx_fast.data.entries import Entry, entries, remove_old
from alignx_fast.errors import UserError

BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
SECONDS = {"m": 60, "h": 3600, "d": 24 * 3600, "w": 7 * 24 * 3600}
AMOUNT = r"\s*(\d+(?:\.\d+)?)\s*"


def manage(cache: Path, max_size: str | None, max_age: str | None) -> None:
    """Remove what lies beyond the bounds, if any are given, then list what is left.

    Args:
        max_size: such as 5GB; what was used last the longest ago is removed first.
        max_age: such as 30d; counted from the last use.

    Raises:
        UserError: the folder cannot be read, or a bound is no amount.
    """
    bytes_kept = None if max_size is None else parse_size(max_size)
    seconds_kept = None if max_age is None else parse_age(max_age)
    if cache.exists() and not cache.is_dir():
        raise UserError(f"{cache} is no folder: give the one that data.cache_dir names.")
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    if bytes_kept is not None or seconds_kept is not None:
        console.print(f"Removed {_counted(remove_old(cache, bytes_kept, seconds_kept))}.")
    left = entries(cache)
    console.print(f"{cache}: {_counted(left)}")
    if left:
        console.print(_table(left))


def parse_size(text: str) -> float:
    """Bytes of an amount such as 5GB (10^9) or 5GiB (2^30).

    Raises:
        UserError: it is none.
    """
    match = re.fullmatch(f"{AMOUNT}([kmgt]?i?)b?\\s*", text.lower())
    if match is None or match[2] not in BYTES:
        raise UserError(f"{text!r} is no size; write it like 5GB.")
    return float(match[1]) * BYTES[match[2]]


def parse_age(text: str) -> float:
    """Seconds of a time such as 30d, 12h or 2w.

    Raises:
        UserError: it is none.
    """
    match = re.fullmatch(f"{AMOUNT}([mhdw])\\s*", text.lower())
    if match is None:
        raise UserError(f"{text!r} is no time; write it like 30d, with m, h, d or w for minutes, hours, days or weeks.")
    return float(match[1]) * SECONDS[match[2]]


def shown_size(size: int) -> str:
    """Bytes as a reader wants them: 1.2 GB."""
    unit = next((unit for unit in ("T", "G", "M", "k") if size >= BYTES[unit.lower()]), "")
    return f"{size / BYTES[unit.lower()]:.1f} {unit}B" if unit else f"{size} B"


def _counted(some: list[Entry]) -> str:
    return f"{len(some)} {'entry' if len(some) == 1 else 'entries'}, {shown_size(sum(entry.bytes for entry in some))}"


def _table(left: list[Entry]) -> Table:
    table = Table()
    for name in ("entry", "size", "last used", "used by"):
        table.add_column(name, justify="right" if name in ("size", "last used") else "left", no_wrap=name != "used by")
    for entry in left:
        user = "in use: " + entry.used_by if entry.in_use and entry.finished else entry.used_by
        if not entry.finished:
            user = "being built" if entry.in_use else "left by a process that was killed"
        table.add_row(*map(Text, (entry.folder.name, shown_size(entry.bytes), _ago(time.time() - entry.last_used), user)))
    return table


def _ago(seconds: float) -> str:
    unit = next((unit for unit in ("d", "h", "m") if seconds >= SECONDS[unit]), None)
    return "now" if unit is None else f"{seconds / SECONDS[unit]:.0f} {unit} ago"
