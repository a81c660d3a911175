"""One writer per run folder."""

import fcntl
import logging
import os
import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from io import FileIO
from pathlib import Path

from alignx_fast.errors import UserError
from alignx_fast.files import read_object, write_json

log = logging.getLogger(__name__)

LOCK_FILE = "lock"
HOLDER_FILE = "lock.json"


@contextmanager
def only_writer(folder: Path, option: str = "--output") -> Iterator[None]:
    """Hold the lock of a folder, which is made if need be; `lock.json` in it says who does. `option` is what chooses another folder.

    The system lets go of a lock when its process ends, however it ends, so that what a killed process or a copied folder leaves
    behind holds up nobody.

    Raises:
        UserError: another process holds it, or the folder cannot be made.
    """
    is_new = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stream = _locked(folder)
    except OSError as error:
        raise UserError(f"Cannot make the folder {folder}: {error.strerror}. Choose another with {option}.") from None
    os.register_at_fork(after_in_child=stream.close)  # a child that outlives this process must not hold on to the lock
    holder = folder / HOLDER_FILE
    if before := read_object(holder):
        log.info("%s did not end its work here; going on from what it left.", _described(before))
    try:
        since = datetime.now().isoformat(sep=" ", timespec="seconds")
        write_json(holder, {"process": os.getpid(), "machine": platform.node(), "since": since, "command": sys.argv})
        yield
    finally:
        holder.unlink(missing_ok=True)
        (folder / LOCK_FILE).unlink(missing_ok=True)
        stream.close()
        if is_new and not any(folder.iterdir()):
            folder.rmdir()


def _locked(folder: Path) -> FileIO:
    """The lock file, opened and locked. One that its holder has removed meanwhile is made anew."""
    file = folder / LOCK_FILE
    while True:
        stream = FileIO(str(file), "a")
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.close()
            who = _described(read_object(folder / HOLDER_FILE) or {})
            raise UserError(
                f"{who} is at work in {folder}: wait for it to end, stop it, or choose another folder with --output."
            ) from None
        except OSError as error:
            log.warning("%s cannot be locked (%s): see to it that no other process writes there.", folder, error.strerror)
            return stream
        if file.exists() and os.path.samestat(os.fstat(stream.fileno()), file.stat()):
            return stream
        stream.close()


def _described(holder: dict[str, object]) -> str:
    if not holder:
        return "Another process"
    return f"Process {holder.get('process')} on {holder.get('machine')} (since {holder.get('since')})"
