"""The package's one logger. A program that imports the package sees nothing of it unless it configures logging."""

import logging
import sys
from typing import TextIO

from alignx_fast.printing import printable

LOGGER = logging.getLogger("alignx_fast")
LOGGER.addHandler(logging.NullHandler())  # without it, warnings would reach standard error by logging's last resort


class _Printable(logging.Formatter):
    """The message alone; it may quote file names and texts, which must not control a terminal."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


class _StandardOutput(logging.StreamHandler[TextIO]):
    """Plain messages to what standard output is at that time, so that a redirection made later holds too."""

    def __init__(self) -> None:
        super().__init__(sys.stdout)
        self.setFormatter(_Printable("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.stream = sys.stdout
        super().emit(record)


def configure(level: int = logging.INFO) -> None:
    """For the command line: messages of `level` and above appear on standard output as they are; calling it again changes nothing."""
    LOGGER.setLevel(level)
    if not any(isinstance(handler, _StandardOutput) for handler in LOGGER.handlers):
        LOGGER.addHandler(_StandardOutput())
