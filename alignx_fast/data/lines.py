"""Lines and JSON or tab-separated records of a text file, plain or compressed, each with its place for messages."""

import difflib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from alignx_fast.data.opening import DAMAGED, decoded, open_bytes, wide_encoding
from alignx_fast.errors import UserError, first_line

Row = dict[str, object]
"""A line's values by column."""
Record = tuple[str, Row]
"""("file:line", the values of that line)."""
LONGEST_LINE = 1 << 26
"""Bytes of a line beyond which a file is taken for one that has no lines."""


def lines(path: str) -> Iterator[tuple[str, str]]:
    """("file:line", text) of every line, split at line feeds alone: other line-breaking characters may be part of a sentence.

    Text is UTF-8, or UTF-16 or UTF-32 where the file begins with their mark.

    Raises:
        UserError: no such file (names the nearest one in that folder), another encoding, damaged compressed data, or a line without end.
    """
    file = local(path)
    if not os.path.isfile(file):
        raise UserError(_missing(file))
    number = 0
    try:
        with open_bytes(file) as stream:
            encoding = wide_encoding(stream)
            for number, text in enumerate(decoded(stream, encoding) if encoding else _utf8_lines(stream), start=1):
                yield f"{path}:{number}", text.rstrip("\r\n")
    except UnicodeDecodeError as error:
        name = error.encoding.upper()
        raise UserError(
            f"{path}:{number + 1} is not {name} (byte {error.object[error.start]:#04x} at {error.start}). Convert the file with iconv."
        ) from None
    except _EndlessLineError:
        raise UserError(
            f"{path}:{number + 1} is longer than {LONGEST_LINE >> 20} MB. Give one row on each line, ended by a line feed."
        ) from None
    except DAMAGED:
        raise _damaged(path, number) from None
    except OSError as error:
        if error.errno is None:  # as the decompressors of Arrow report it
            raise _damaged(path, number) from None
        raise UserError(f"Cannot read {path}: {error.strerror}.") from None


class _EndlessLineError(Exception):
    """A line longer than `LONGEST_LINE`."""


def _utf8_lines(stream: BinaryIO) -> Iterator[str]:
    encoding = "utf-8-sig"
    while raw := stream.readline(LONGEST_LINE):
        if len(raw) == LONGEST_LINE:
            raise _EndlessLineError
        yield raw.decode(encoding)
        encoding = "utf-8"


def _damaged(path: str, number: int) -> UserError:
    kind = {".bz2": "bzip2", ".xz": "xz", ".zst": "zstd"}.get(Path(path).suffix, "gzip")
    return UserError(f"{path} is damaged or not {kind} data (after line {number}). Fetch or compress it again.")


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
