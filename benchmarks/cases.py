"""What the benchmark tests of all kernel families do."""

import pytest

from benchmarks.implementations import Implementation
from benchmarks.measure import measure
from benchmarks.problems import Problem
from benchmarks.results import Results


def run_case(problem: Problem, implementation: Implementation, results: Results, seconds: float) -> None:
    """Measure and save; a case that cannot run here is skipped, a peer that fails is noted, ours fails the test."""
    row = measure(problem, implementation, results.rates, seconds=seconds)
    if row["status"] == "not run":
        pytest.skip(row["reason"])
    results.add(row)
    if row["status"] == "ok" or row["status"] == "out of memory":
        return
    message = f"{implementation.name} is {row['status']}: {row['reason']}"
    pytest.fail(message) if implementation.ours else pytest.xfail(message)
