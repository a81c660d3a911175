"""Records of two line-aligned files (Moses), and where two that differ in length go out of step."""

from array import array
from collections.abc import Iterator
from itertools import islice

import numpy as np

from alignx_fast.data.lines import Record, lines
from alignx_fast.errors import UserError

SMOOTHING = 10
"""Characters added to both sides before their lengths are compared, so that short lines may differ more."""
SHOWN = 60
"""Characters of a line in a message."""


def aligned_records(path: str, target_path: str) -> Iterator[Record]:
    """Two files, line n of one translating line n of the other.

    Raises:
        UserError: the files differ in length, with both counts and the line from which they seem to be out of step.
    """
    sources, targets = lines(path), lines(target_path)
    for where, src in sources:
        target = next(targets, None)
        if target is None:
            raise _unaligned(path, target_path)
        yield where, {"src": src, "tgt": target[1]}
    if next(targets, None) is not None:
        raise _unaligned(path, target_path)


def _unaligned(path: str, target_path: str) -> UserError:
    source, target = _lengths(path), _lengths(target_path)
    counts = f"{path} has {len(source)} lines and {target_path} {len(target)}: line-aligned files must have the same number."
    fitting, shorter = last_in_step(source, target), min(len(source), len(target))
    if fitting == shorter:
        return UserError(f"{counts} Up to line {shorter} they fit each other by length: the shorter file seems to be cut short.")
    here, there = (_line(file, fitting) for file in (path, target_path))
    return UserError(f"{counts} From line {fitting + 1} on they no longer fit each other by length: {here} beside {there}.")


def last_in_step(source: np.ndarray, target: np.ndarray) -> int:
    """How many lines fit each other before one side has lines too many; lengths in characters, int [lines of each].

    Of all places where the surplus could stand, the one after which the rest, moved up by it, fits best by the ratio of lengths.
    """
    longer, shorter = (source, target) if len(source) > len(target) else (target, source)
    if not len(shorter):
        return 0
    a, b = np.log(longer + SMOOTHING), np.log(shorter + SMOOTHING)
    surplus = len(longer) - len(shorter)
    usual = np.median(a) - np.median(b)
    in_step, moved_up = np.abs(a[: len(b)] - b - usual), np.abs(a[surplus:] - b - usual)
    misfit = np.concatenate([[0.0], np.cumsum(in_step - moved_up)])
    return int(np.flatnonzero(misfit <= misfit.min() + 1e-9)[-1])


def _lengths(path: str) -> np.ndarray:
    return np.frombuffer(array("q", (len(text.strip()) for _, text in lines(path))), dtype=np.int64)


def _line(path: str, number: int) -> str:
    text = next(islice(lines(path), number, None))[1].strip()
    return f'"{text[:SHOWN]}{"..." if len(text) > SHOWN else ""}"'
