"""Files as bytes, whatever they are compressed with, and the encoding that their first bytes tell."""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from pathlib import Path
from typing import BinaryIO, cast

COMPRESSED = (".gz", ".bz2", ".xz", ".zst")
"""Endings of compressed files."""
DAMAGED = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)
"""What reading a compressed file that was cut or changed may raise, beside an OSError without a number."""
BYTE_ORDER_MARKS = {  # the longer ones first: that of UTF-32 begins with that of UTF-16
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
ZERO_BYTES: dict[tuple[bool, ...], str] = {
    (False, True, False, True): "utf-16-le",
    (True, False, True, False): "utf-16-be",
    (False, True, True, True): "utf-32-le",
    (True, True, True, False): "utf-32-be",
}
"""Which of a file's first four bytes are zero where it begins with ASCII and without a mark (as in RFC 4627, section 3)."""


def uncompressed_name(path: str) -> str:
    """`train.de.gz` as `train.de`."""
    return next((path.removesuffix(ending) for ending in COMPRESSED if path.endswith(ending)), path)


def open_bytes(file: Path) -> io.BufferedReader:
    """What a file holds, uncompressed as its ending says."""
    opened: object
    if file.suffix == ".gz":
        opened = gzip.GzipFile(file)
    elif file.suffix == ".bz2":
        opened = bz2.BZ2File(file)
    elif file.suffix == ".xz":
        opened = lzma.LZMAFile(file)  # noqa: SIM115  (the caller closes it)
    elif file.suffix == ".zst":
        import pyarrow as pa

        opened = pa.CompressedInputStream(pa.OSFile(str(file)), "zstd")
    else:
        return file.open("rb")
    return io.BufferedReader(cast(io.RawIOBase, opened))


def wide_encoding(stream: io.BufferedReader) -> str | None:
    """UTF-16 or UTF-32 where the stream begins with its mark, or with two characters of ASCII in it.

    Such text cannot be split into lines before it is decoded.
    """
    head = stream.peek(4)[:4]
    marked = next((name for mark, name in BYTE_ORDER_MARKS.items() if head.startswith(mark)), None)
    return marked or ZERO_BYTES.get(tuple(byte == 0 for byte in head))


def decoded(stream: BinaryIO, encoding: str) -> io.TextIOWrapper:
    """The stream as text, its lines ending at line feeds alone."""
    return io.TextIOWrapper(stream, encoding=encoding, newline="\n")
