"""What every goal has come to, a line each: `python -m benchmarks.verdict RESULTS ["GOAL=STATE" ...]`, from the JSON files in RESULTS.

Further goals, whose state is known already, are listed in front.
"""

import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.goals import GOALS, Measured
from benchmarks.render import load


def verdict(folder: Path, known: Iterable[str]) -> list[str]:
    """Lines such as "missed  GOAL: 1.3 x, wanted ≤ 1.18 x"; with results of several devices, once for each."""
    lines = [f"{state:6}  {text}" for text, _, state in (item.rpartition("=") for item in known)]
    devices = load(folder)
    for name, rows in [(device.name, device.rows.values()) for device in devices] or [("", [])]:
        if len(devices) > 1:
            lines.append(f"{name}:")
        for text, wanted, measured, state in (goal.line(Measured(rows)) for goal in GOALS):
            lines.append(f"{state:6}  {text}: {measured + ', ' if measured else ''}wanted {wanted}".rstrip())
    return lines


if __name__ == "__main__":
    print("\n".join(verdict(Path(sys.argv[1]), sys.argv[2:])))
