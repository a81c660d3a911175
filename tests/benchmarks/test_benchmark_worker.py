"""A case that breaks, hangs or dies costs its own row and no other."""

import pytest
import torch

from benchmarks import cases
from benchmarks.implementations import Implementation, find
from benchmarks.problems import InfoNce
from benchmarks.rates import Rates
from benchmarks.results import Results
from benchmarks.worker import Worker

PROBLEM, OTHER = InfoNce(16, 16, 8, "fp32"), InfoNce(20, 20, 8, "fp32")
RATES = {"matmul_fp32_flops": 1e10, "matmul_fp64_flops": 1e10}


def broken(name: str, ours: bool = False) -> Implementation:
    """What the parent knows of an implementation that the worker registers."""
    return Implementation("info_nce", name, build=lambda problem: pytest.fail("built in the parent"), ours=ours)


def test_each_failure_costs_one_row():
    """One worker through all of it, because starting one takes seconds."""
    worker = Worker(Rates(torch.device("cpu"), dict(RATES)), seconds=0.0, module="tests.benchmarks.broken_worker")
    eager = find("info_nce", "torch eager")

    row = worker.measure(PROBLEM, broken("talks"), 60)
    assert row["status"] == "ok", row
    first = worker.process.pid
    assert worker.measure(PROBLEM, eager, 60)["status"] == "ok"
    assert worker.process.pid == first, "one process for a problem"
    hung = worker.measure(PROBLEM, broken("hangs"), 0.5)
    assert (hung["status"], hung["reason"]) == ("failed", "stopped after 0 s")
    assert worker.process is None
    died = worker.measure(PROBLEM, broken("dies"), 60)
    assert (died["status"], died["reason"]) == ("failed", "its process ended with signal 6")
    assert died["sizes"] == {"n": 16, "m": 16, "d": 8, "dtype": "fp32", "symmetric": False}
    after = worker.measure(OTHER, eager, 60)
    assert after["status"] == "ok"
    assert after["checked_at"] == OTHER.name
    raised = worker.measure(OTHER, broken("raises", ours=True), 60)
    assert raised["reason"] == "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert worker.process is None, "the error would stay in the process"
    worker.close()
    worker.close()


def test_what_cannot_run_starts_no_process():
    worker = Worker(Rates(torch.device("cpu")), seconds=0.0)
    row = worker.measure(PROBLEM, find("info_nce", "alignx"), 60)
    assert (row["status"], worker.process) == ("not run", None)


@pytest.mark.parametrize("ours", [True, False])
def test_a_failed_row_is_kept_whoever_failed(ours, tmp_path):
    """Ours fails its own test, and the results know it."""
    results = Results(tmp_path / "x.json", {"date": "now"}, Rates(torch.device("cpu")))
    failed = {"family": "info_nce", "status": "failed", "reason": "why"}
    with pytest.raises(pytest.fail.Exception if ours else pytest.xfail.Exception, match="case is failed: why"):
        cases.run_case(PROBLEM, broken("case", ours), results, lambda problem, implementation: dict(failed))
    assert results.rows == [failed]
