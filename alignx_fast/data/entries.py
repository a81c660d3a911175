"""The entries of the cache folder: who uses one, how large they are, and which are removed."""

import fcntl
import json
import logging
import os
import platform
import re
import shutil
import stat
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import get_args

from alignx_fast.files import read_object
from alignx_fast.stages import Stage

log = logging.getLogger(__name__)

PARTIAL = ".partial-"
"""Begins the names of folders that are being built, or removed."""
ENTRY = re.compile(f"({'|'.join(get_args(Stage))})-[0-9a-f]{{32}}")
USED_FILE = "used.json"
"""Says who used an entry last, by its time when, and is locked by every process that uses the entry."""
LEFTOVER_SECONDS = 24 * 3600
"""A folder of another machine in which nothing was written for so long is no longer being built."""
KEEP_BYTES, KEEP_SECONDS = 200 * 10**9, 90 * 24 * 3600
"""What is kept when a new entry is made, unless it is in use."""

_held: dict[tuple[int, int], int] = {}
"""Open files by which this process holds the entries it uses, until it ends: what it read stays mapped into memory."""


@dataclass(frozen=True)
class Entry:
    """One folder of the cache."""

    folder: Path
    bytes: int
    last_used: float
    """Seconds since 1970."""
    used_by: str
    """The run folder, process and machine that used it last."""
    in_use: bool
    """A process uses it now, or that cannot be told."""

    @property
    def finished(self) -> bool:
        """False for one that is being built, or that a killed process has left."""
        return not self.folder.name.startswith(PARTIAL)


def partial_name() -> str:
    """How the folders begin that this machine builds."""
    return f"{PARTIAL}{re.sub('[^0-9A-Za-z]', '_', platform.node())}-"


def hold(folder: Path, user: str) -> None:
    """Mark an entry as used by this process until it ends. Where nothing can be written or locked, it stays unmarked.

    Args:
        user: what the list of entries says of who uses it.
    """
    file = folder / USED_FILE
    while True:
        try:
            if file.is_dir():
                shutil.rmtree(file)
            number = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
            _write_user(number, user)
        except OSError:
            try:
                number = os.open(file, os.O_RDONLY)
            except OSError:
                return
        held = _keep_locked(number)
        if not file.exists() or os.path.samestat(held, file.stat()):
            return  # else it was removed meanwhile, and another process has built it again


def _write_user(number: int, user: str) -> None:
    now = datetime.now().isoformat(sep=" ", timespec="seconds")
    text = json.dumps({"run": user, "process": os.getpid(), "machine": platform.node(), "at": now})
    with suppress(OSError):  # the disk may be full
        os.ftruncate(number, 0)
        os.pwrite(number, text.encode(), 0)


def _keep_locked(number: int) -> os.stat_result:
    """Lock an open file or folder against removal until the process ends; returns its status."""
    status = os.fstat(number)
    key = status.st_dev, status.st_ino
    with suppress(OSError):  # a file system without locks: there every entry counts as in use
        fcntl.flock(number, fcntl.LOCK_SH)
    if key in _held:
        os.close(number)
    else:
        _held[key] = number
    return status


def hold_partial(folder: Path) -> None:
    """Mark a folder as being built by this process until it ends."""
    _keep_locked(os.open(folder, os.O_RDONLY))


def entries(cache: Path) -> list[Entry]:
    """The entries of a cache folder, those used last in front; what is not named as an entry is not the cache's."""
    found = [_entry(path) for path in _paths(cache)]
    return sorted((entry for entry in found if entry is not None), key=lambda entry: entry.last_used, reverse=True)


def remove_old(cache: Path, max_bytes: float | None, max_seconds: float | None) -> list[Entry]:
    """Remove what was used last more than `max_seconds` ago, then the longest unused until at most `max_bytes` are left; never one in use.

    What a killed process has left is removed too.
    """
    removed = remove_leftovers(cache)
    kept = [entry for entry in entries(cache) if entry.finished]
    total, now = sum(entry.bytes for entry in kept), time.time()
    for entry in reversed(kept):
        too_old = max_seconds is not None and now - entry.last_used > max_seconds
        if (too_old or (max_bytes is not None and total > max_bytes)) and remove(entry.folder):
            total -= entry.bytes
            removed.append(entry)
    return removed


def remove_leftovers(cache: Path) -> list[Entry]:
    """Remove the folders that killed processes have left half-built."""
    removed = []
    for entry in entries(cache):
        if not entry.finished and not _may_be_built(entry) and remove(entry.folder):
            removed.append(entry)
    return removed


def remove(folder: Path) -> bool:
    """Remove an entry that nobody uses; says whether it could be removed."""
    number = _lock_of_nobody(_lock_file(folder))
    if number is None:
        return False
    try:
        put_away(folder)
    except OSError as error:
        log.warning("%s cannot be removed: %s.", folder, error.strerror)
        return False
    finally:
        os.close(number)
    return True


def put_away(path: Path) -> None:
    """Remove a file or folder of the cache at once: it loses its name before its content."""
    gone = path.with_name(f"{partial_name()}{uuid.uuid4().hex[:8]}")
    path.rename(gone)
    if gone.is_dir() and not gone.is_symlink():
        shutil.rmtree(gone, ignore_errors=True)
    else:
        gone.unlink()


def _lock_of_nobody(path: Path) -> int | None:
    """The open file, locked, where nobody else holds it; None where somebody does, or it cannot be told."""
    try:
        number = os.open(path, os.O_RDWR)  # which locks need on network file systems
    except OSError:  # a folder, or not writable
        try:
            number = os.open(path, os.O_RDONLY)
        except OSError:
            return None
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(number)
        return None
    return number


def _may_be_built(entry: Entry) -> bool:
    """Locks of another machine may not be seen here, so that its folders count until they are old; one just made is not locked yet."""
    young = time.time() - entry.last_used < LEFTOVER_SECONDS
    ours = entry.folder.name.startswith(partial_name())
    return young and not (ours and entry.bytes)


def _paths(cache: Path) -> list[Path]:
    try:
        names = sorted(cache.iterdir())
    except OSError:
        return []
    return [path for path in names if ENTRY.fullmatch(path.name) or path.name.startswith(PARTIAL)]


def _entry(folder: Path) -> Entry | None:
    """What is known of an entry; None where it has just been removed."""
    used = folder / USED_FILE
    try:
        statuses = [path.lstat() for path in [folder, *folder.rglob("*")]]
        last_used = used.stat().st_mtime if used.is_file() else max(status.st_mtime for status in statuses)
    except OSError:
        return None
    user = read_object(used) or {}
    who = f"{user['run']} (process {user.get('process')} on {user.get('machine')})" if "run" in user else "unknown"
    size = sum(status.st_size for status in statuses if stat.S_ISREG(status.st_mode))
    return Entry(folder, size, last_used, who, _in_use(_lock_file(folder)))


def _lock_file(folder: Path) -> Path:
    """What the users of a folder hold locked: a finished entry's file where it has one."""
    file = folder / USED_FILE
    return file if file.is_file() else folder


def _in_use(path: Path) -> bool:
    number = _lock_of_nobody(path)
    if number is None:
        return True
    os.close(number)
    return False
