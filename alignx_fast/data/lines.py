"""Lines and JSON or tab-separated records of a text file, plain or gzipped, each with its place for messages."""

import difflib
import gzip
import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from alignx_fast.errors import UserError, first_line

Row = dict[str, object]
"""A line's values by column."""
Record = tuple[str, Row]
"""("file:line", the values of that line)."""


def lines(path: str) -> Iterator[tuple[str, str]]:
    """("file:line", text) of every line, split at line feeds alone: other line-breaking characters may be part of a sentence.

    Raises:
        UserError: no such file (names the nearest one in that folder), not UTF-8, or damaged gzip data.
    """
    file = local(path)
    if not os.path.isfile(file):
        raise UserError(_missing(file))
    number = 0
    try:
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as stream:
            for number, raw in enumerate(stream, start=1):
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                yield f"{path}:{number}", text.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}:{number} is not UTF-8 (byte {error.object[error.start]:#04x} at {error.start}). Convert the file with iconv."
        ) from None
    except (EOFError, zlib.error, gzip.BadGzipFile):
        raise UserError(f"{path} is damaged or not gzip data (after line {number}). Fetch or compress it again.") from None
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None


def local(path: str) -> Path:
    """A path with `~` as the home folder; unlike pathlib's own, this never raises, and neither does os.path.isfile."""
    return Path(os.path.expanduser(path))


def jsonl_records(path: str) -> Iterator[Record]:
    """One JSON object a line; blank lines are skipped.

    Raises:
        UserError: a line that is not a JSON object, with file and line number.
    """
    for where, line in lines(path):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"{where} is not JSON: {error.msg} at column {error.colno}. Each line must be one JSON object."
            ) from None
        except (ValueError, RecursionError) as error:  # a number of thousands of digits; brackets in brackets
            raise UserError(f"{where} cannot be read as JSON: {first_line(error)} Each line must be one JSON object.") from None
        if not isinstance(record, dict):
            raise UserError(f"{where} is a JSON {type(record).__name__}. Each line must be one JSON object.")
        yield where, record


def tsv_records(path: str, columns: dict[str, str]) -> Iterator[Record]:
    """Tab-separated values without quoting; the first line names the columns, unless `columns` counts them ("1", "2").

    Raises:
        UserError: a line with another number of cells than the first, or a column named twice, with file and line number.
    """
    names: list[str] | None = None
    for where, line in lines(path):
        cells = line.split("\t")
        if names is None:
            counted = bool(columns) and all(name.isdigit() for name in columns.values())
            names = [str(i) for i in range(1, len(cells) + 1)] if counted else [cell.strip() for cell in cells]
            if len(set(names)) < len(names):
                twice = next(name for name in names if names.count(name) > 1)
                raise UserError(f"{where} names the column `{twice}` twice: rename one, or count the columns in `columns`.")
            if not counted:
                continue
        if len(cells) != len(names):
            raise UserError(f"{where} has {len(cells)} cells and the file's first line {len(names)}. Fix the tabs of that line.")
        yield where, dict(zip(names, cells, strict=True))


def aligned_records(path: str, target_path: str) -> Iterator[Record]:
    """Two files, line n of one translating line n of the other.

    Raises:
        UserError: the files differ in length, with both counts.
    """
    sources, targets = lines(path), lines(target_path)
    count = 0
    for where, src in sources:
        target = next(targets, None)
        if target is None:
            raise _unaligned(path, count + 1 + sum(1 for _ in sources), target_path, count)
        count += 1
        yield where, {"src": src, "tgt": target[1]}
    if next(targets, None) is not None:
        raise _unaligned(path, count, target_path, count + 1 + sum(1 for _ in targets))


def _unaligned(path: str, lines_of_path: int, target_path: str, lines_of_target: int) -> UserError:
    return UserError(
        f"{path} has {lines_of_path} lines and {target_path} {lines_of_target}: line-aligned files must have the same number."
    )


def _missing(file: Path) -> str:
    """The message for a file that is not there."""
    if os.path.isdir(file):
        return f"{file} is a folder. Name a file in it, or set format: hf for a saved Hugging Face dataset."
    if not os.path.isdir(file.parent):
        return f"No file {file}: the folder {file.parent} does not exist. Check the path."
    try:
        names = os.listdir(file.parent)
    except OSError:
        names = []
    near = difflib.get_close_matches(file.name[:255], names, n=1, cutoff=0.5)
    hint = f"Did you mean {file.parent / near[0]}?" if near else "Check the path, or set format: hf for a Hugging Face dataset."
    return f"No file {file}. {hint}"
