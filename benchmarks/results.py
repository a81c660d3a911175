"""One JSON file per run: the device, the versions, the rates, and a row for every problem and implementation."""

import importlib.metadata
import json
import os
import platform
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alignx_fast.environment import git_state, machine, versions
from benchmarks.measure import Row
from benchmarks.rates import Rates

FOLDER = Path(__file__).parent / "results"
PEERS = ("cut-cross-entropy", "inf-cl", "memeff", "nvidia-cutlass-dsl", "quack-kernels", "sentence-transformers", "trl")


@dataclass
class Results:
    """The rows so far; written after each, so that a run that is cut off keeps what it measured."""

    path: Path
    run: dict[str, Any]
    rates: Rates
    rows: list[Row] = field(default_factory=list)
    earlier: int = 0
    """How many of the rows were in the file before."""

    def add(self, row: Row) -> None:
        self.rows.append(row)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        partial = self.path.with_suffix(".partial")
        partial.write_text(json.dumps({"run": self.run, "rates": self.rates.measured, "rows": self.rows}, indent=1) + "\n")
        os.replace(partial, self.path)


def open_results(command: list[str], place: Path, rates: Rates) -> Results:
    """Results of the run that starts now: in a new file named after the device and the time, or added to the JSON file `place`."""
    if place.suffix == ".json" and place.exists():
        before = json.loads(place.read_text())
        rates.measured |= before["rates"]
        return Results(place, before["run"], rates, before["rows"], len(before["rows"]))
    now = datetime.now(UTC)
    found = {key: value for key, value in machine().items() if key != "system"}
    if found["device"] == "cpu":
        found["device"] = cpu_name()
    run = {
        "date": now.isoformat(timespec="seconds"),
        "command": " ".join(command),
        "machine": found,
        "load_average": os.getloadavg()[0],
        "versions": versions() | {name: _version(name) for name in PEERS},
        "git": git_state(),
    }
    name = re.sub(r"[^a-z0-9]+", "-", found["device"].lower()).strip("-")
    return Results(place if place.suffix == ".json" else place / f"{name}-{now:%Y%m%d-%H%M%S}.json", run, rates)


def cpu_name() -> str:
    """The processor's model name, else its architecture."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.machine()


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
