"""`pytest benchmarks`: on a CPU the small problems, on a GPU the table; a JSON file in benchmarks/results, a summary at the end.

pytest benchmarks                           everything this machine is meant to do
pytest benchmarks -k "info_nce and 65536"   a part of it
pytest benchmarks --full --budget 540       the whole grid, no new case after nine minutes
"""

import time
from pathlib import Path

import pytest
import torch

from benchmarks.implementations import implementations
from benchmarks.problems import problems
from benchmarks.rates import rates
from benchmarks.render import summary
from benchmarks.results import FOLDER, Results, open_results

STARTED = time.monotonic()
RESULTS: list[Results] = []


def pytest_addoption(parser):
    group = parser.getgroup("benchmarks")
    group.addoption("--full", action="store_true", help="the whole grid of problems on a GPU")
    group.addoption("--budget", type=float, default=None, metavar="SECONDS", help="start no case after this many seconds")
    group.addoption("--seconds", type=float, default=None, help="time spent on one median (default 1 on a GPU, 0.3 on a CPU)")
    group.addoption("--results", type=Path, default=FOLDER, help="folder for the JSON file")
    group.addoption("--rows", type=Path, default=None, help="JSONL pairs for the training steps instead of synthetic rows")


def pytest_generate_tests(metafunc):
    """Every problem of the module's family with every implementation; one problem's implementations follow each other."""
    if "problem" not in metafunc.fixturenames:
        return
    family = metafunc.module.FAMILY
    chosen = problems(family, on_gpu=torch.cuda.is_available(), full=metafunc.config.getoption("--full"))
    cases = [
        pytest.param(problem, implementation, id=f"{problem.name}-{implementation.name.replace(' ', '_')}")
        for problem in chosen
        for implementation in implementations(family)
    ]
    metafunc.parametrize(("problem", "implementation"), cases)


@pytest.fixture(scope="session")
def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.fixture(scope="session")
def results(request, device) -> Results:
    opened = open_results(
        ["pytest", *map(str, request.config.invocation_params.args)], request.config.getoption("--results"), rates(device.type)
    )
    RESULTS.append(opened)
    return opened


@pytest.fixture(scope="session")
def seconds(request, device) -> float:
    return request.config.getoption("--seconds") or (1.0 if device.type == "cuda" else 0.3)


@pytest.fixture(autouse=True)
def _within_budget(request):
    budget = request.config.getoption("--budget")
    if budget is not None and time.monotonic() - STARTED > budget:
        pytest.skip(f"over the budget of {budget:.0f} s")


def pytest_terminal_summary(terminalreporter):
    for opened in RESULTS:
        if opened.rows:
            terminalreporter.section(f"measured, and saved in {opened.path.name}")
            terminalreporter.write_line(summary(opened.rows))
