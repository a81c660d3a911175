"""Writing files so that a kill, a full disk or a power cut never leaves half of one instead of a good one."""

import errno
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Write beside `path` and onto the disk, then rename over it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    try:
        # A name of a file may hold what is no character; JSON and YAML read its escape back as that.
        with partial.open("w", encoding="utf-8", errors="backslashreplace") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, path)
        sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def check_place(path: Path) -> None:
    """See whether `path` can be written, before the work whose result it is to hold.

    Raises:
        OSError: it cannot, and what is to blame.
    """
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    nearest = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not nearest.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(nearest))


def write_json(path: Path, value: object) -> None:
    """`value` as indented JSON, any script readable; NaN and infinity, for which JSON has no word, as null."""
    write_text(path, json.dumps(finite(value), ensure_ascii=False, indent=1) + "\n")


def finite(value: object) -> object:
    """`value` with None in the place of every number that is not finite."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    return [finite(part) for part in value] if isinstance(value, list | tuple) else value


def read_json(path: Path) -> Any:
    """The value `write_json` wrote."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; None where there is none, or the file is damaged."""
    try:
        value = read_json(path)
    except (OSError, ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def publish(partial: Path, folder: Path) -> None:
    """Give a finished folder its name, once everything in it is on the disk."""
    sync_tree(partial)
    partial.rename(folder)
    sync(folder.parent)


def link_or_copy(source: str, target: str) -> None:
    """A second name for a file, which costs no space; a copy where the file system has none."""
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


def sync_tree(folder: Path) -> None:
    """Wait until every file below a folder, and the folder, is on the disk."""
    for path in folder.rglob("*"):
        if path.is_dir() or path.is_file():
            sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Wait until a file, or the list of names in a folder, is on the disk."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in UNSYNCED:
            raise
    finally:
        os.close(number)


UNSYNCED = (errno.EINVAL, errno.ENOTSUP, errno.EBADF)
"""How file systems say that they cannot wait for a folder."""
