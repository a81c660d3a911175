"""One optimizer step of both stages: ours against expanded losses on padded batches, the stock Trainer, and TRL."""

import pytest
import torch

from benchmarks.step.cases import CPU_CASES, GPU_CASES
from benchmarks.step.run import run_step

CASES = GPU_CASES if torch.cuda.is_available() else CPU_CASES


@pytest.mark.parametrize(
    ("case", "contender"),
    [pytest.param(case, name, id=f"{case.name}-{name.replace(' ', '_')}") for case in CASES for name in case.contenders],
)
def test_train_step(case, contender, results, request):
    row = run_step(case, contender, request.config.getoption("--rows"))
    if row["status"] == "not run":
        pytest.skip(row["reason"])
    results.add(row)
    if row["status"] == "failed":
        pytest.fail(row["reason"])
