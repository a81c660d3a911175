"""Standard streams that end no work: closed, broken or full, or unable to show a character."""

import errno
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

READER_GONE = (errno.EPIPE, errno.EIO, errno.EBADF)
"""What writing says when the reader of a pipe, or the terminal, has gone."""


class OutputLostError(BaseException):
    """Standard output takes no more of what the command is there to print; no library may swallow that."""

    def __init__(self, cause: OSError) -> None:
        self.reader_gone = cause.errno in READER_GONE
        super().__init__(f"Standard output cannot be written ({cause.strerror}): send it somewhere else.")


@contextmanager
def steady_streams(*, goes_on: bool) -> Iterator[None]:
    """Within the block, no standard stream is missing, and characters that one cannot show are written as escapes.

    When standard output is lost, a command that `goes_on` says so once on standard error and drops the rest.

    Raises:
        OutputLostError: standard output is lost, and the command does not go on.
    """
    before = sys.stdin, sys.stdout, sys.stderr
    _open_missing()

    def lost(error: OSError) -> None:
        if not goes_on:
            raise OutputLostError(error) from None
        print(f"alignx-fast: Standard output is lost ({error.strerror}): going on without it.", file=sys.stderr)

    _take_all_characters()
    sys.stdout, sys.stderr = _steady(sys.stdout, lost), _steady(sys.stderr, lambda error: None)
    try:
        yield
    finally:
        sys.stdin, sys.stdout, sys.stderr = before


class _Steady:
    """Writes to a stream until that fails, and from then on nowhere."""

    def __init__(self, stream: TextIO, lost: Callable[[OSError], None]) -> None:
        self._stream, self._lost = stream, lost

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            self._drop(error)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._drop(error)

    def _drop(self, error: OSError) -> None:
        """Let what is written from now on, and what still waits in a buffer, go nowhere."""
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
        self._lost(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _steady(stream: TextIO, lost: Callable[[OSError], None]) -> TextIO:
    return cast(TextIO, _Steady(stream, lost))


def _open_missing() -> None:
    """Open what was closed before the start (`>&-`) on nothing: the next file to be opened would take its number, and what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    sys.stdin = sys.stdin or open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - open as long as the process
    sys.stdout = sys.stdout or open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _take_all_characters() -> None:
    """Escapes for what a terminal cannot show; input that says it is ASCII may be UTF-8, and what is neither becomes U+FFFD."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    if hasattr(sys.stdin, "reconfigure"):
        is_ascii = (sys.stdin.encoding or "").lower() in ("ascii", "us-ascii", "ansi_x3.4-1968")
        sys.stdin.reconfigure(encoding="utf-8" if is_ascii else None, errors="replace")
