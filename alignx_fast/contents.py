"""Size and hash of every file of a folder, recorded when the folder is finished and compared when it is read."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from alignx_fast.files import read_object

RECORD_FILE = "files.json"
"""Holds the record; an empty one while the folder is being written."""
UNFINISHED = "it was not written to its end"


def record_of(folder: Path, *, leave_out: frozenset[str] = frozenset()) -> dict[str, dict[str, object]]:
    """Bytes and SHA-256 of every file below a folder by its path there, without the record and the names in `leave_out`."""
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    kept = [name for name in names if name != RECORD_FILE and name not in leave_out]
    return {name: {"bytes": (folder / name).stat().st_size, "sha256": sha256(folder / name)} for name in kept}


def difference(folder: Path) -> str | None:
    """How a folder differs from its record, as the end of a sentence; None where it does not. Reads every file that is recorded."""
    record = read_object(folder / RECORD_FILE)
    if record is None:
        return f"its {RECORD_FILE} cannot be read" if (folder / RECORD_FILE).exists() else UNFINISHED
    if not record:
        return UNFINISHED
    try:
        return next((reason for name, written in record.items() if (reason := _file_difference(folder, name, written))), None)
    except (OSError, ValueError) as error:  # a name that no file can have is a ValueError
        return f"it cannot be read ({getattr(error, 'strerror', None) or error})"


def _file_difference(folder: Path, name: str, written: object) -> str | None:
    file = folder / name
    if not isinstance(written, Mapping):
        return f"its {RECORD_FILE} cannot be read"
    if not file.is_file():
        return f"its {name} is missing"
    if file.stat().st_size != written.get("bytes"):
        return f"its {name} has {file.stat().st_size} bytes instead of {written.get('bytes')}"
    try:
        changed = sha256(file) != written.get("sha256")
    except OSError as error:
        return f"its {name} cannot be read ({error.strerror})"
    return f"the content of its {name} has changed since it was saved" if changed else None


def sha256(file: Path) -> str:
    """The hash of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
