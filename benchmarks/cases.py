"""What the benchmark tests of all kernel families do."""

from collections.abc import Callable

import pytest

from benchmarks.implementations import Implementation
from benchmarks.measure import Row
from benchmarks.problems import Problem
from benchmarks.results import Results


def run_case(
    problem: Problem, implementation: Implementation, results: Results, measured: Callable[[Problem, Implementation], Row]
) -> None:
    """Measure and save; a case that cannot run here is skipped, a peer that fails is noted, ours fails its own test."""
    row = measured(problem, implementation)
    if row["status"] == "not run":
        pytest.skip(row["reason"])
    results.add(row)
    if row["status"] == "ok" or row["status"] == "out of memory":
        return
    message = f"{implementation.name} is {row['status']}: {row['reason']}"
    pytest.fail(message) if implementation.ours else pytest.xfail(message)
