"""One optimizer step of both stages: ours against expanded losses on padded batches, the stock Trainer, and TRL."""

import pytest

from benchmarks.step.cases import CPU_CASES, GPU_CASES, StepCase
from benchmarks.step.run import run_step


def cases(on_gpu: bool) -> list[tuple[StepCase, str]]:
    """Every case with every contender."""
    return [(case, contender) for case in (GPU_CASES if on_gpu else CPU_CASES) for contender in case.contenders]


def test_train_step(case, contender, results, request, seconds_left):
    row = run_step(case, contender, request.config.getoption("--rows"), seconds_left)
    if row["status"] == "not run":
        pytest.skip(row["reason"])
    results.add(row)
    if row["status"] == "failed":
        pytest.fail(row["reason"])
