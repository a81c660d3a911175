"""`pytest benchmarks`: on a CPU the small problems, on a GPU the table; a JSON file in benchmarks/results, a summary at the end.

pytest benchmarks                           everything this machine is meant to do
pytest benchmarks -k "info_nce and 65536"   some of it
pytest benchmarks --full --budget 540       the whole grid, no new case after nine minutes

On a GPU every problem has a process of its own, and every case a time limit (`benchmarks.worker`).
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from benchmarks.implementations import Implementation, find, implementations
from benchmarks.measure import Row, measure
from benchmarks.parts import PARTS, select
from benchmarks.problems import Problem, problems
from benchmarks.rates import rates
from benchmarks.render import summary
from benchmarks.results import FOLDER, Results, open_results
from benchmarks.worker import Worker

STARTED = time.monotonic()
RESULTS: list[Results] = []


def pytest_addoption(parser):
    group = parser.getgroup("benchmarks")
    group.addoption("--full", action="store_true", help="the whole grid of problems on a GPU")
    group.addoption("--part", choices=sorted(PARTS), default=None, help="the cases of one part of gpu.sh")
    group.addoption("--dry-run", action="store_true", help="tiny sizes in place of the GPU's problems, on any machine")
    group.addoption("--budget", type=float, default=None, metavar="SECONDS", help="start no case after this many seconds")
    group.addoption("--until", type=float, default=None, metavar="SECONDS", help="cut a case off that runs at this many seconds")
    group.addoption("--limit", type=float, default=150.0, metavar="SECONDS", help="of one kernel case on a GPU")
    group.addoption("--seconds", type=float, default=None, help="time spent on one median (default 1 on a GPU, 0.3 on a CPU)")
    group.addoption("--results", type=Path, default=FOLDER, help="folder for a new JSON file, or a JSON file to add to")
    group.addoption("--rows", type=Path, default=None, help="JSONL pairs for the training steps instead of synthetic rows")


def pytest_generate_tests(metafunc):
    """Every problem of the module's family with every implementation; one problem's implementations follow each other."""
    option = metafunc.config.getoption
    if "problem" in metafunc.fixturenames:
        family, on_gpu = metafunc.module.FAMILY, torch.cuda.is_available() or option("--dry-run")
        every = [
            (problem, found.name)
            for problem in problems(family, on_gpu=on_gpu, full=option("--full"))
            for found in implementations(family)
        ]
        cases = [
            pytest.param(problem, find(family, name), id=f"{problem.name}-{name.replace(' ', '_')}")
            for problem, name in select(every, option("--part"), option("--dry-run"))
        ]
        metafunc.parametrize(("problem", "implementation"), cases)
    elif "contender" in metafunc.fixturenames:
        every = metafunc.module.cases(torch.cuda.is_available() or option("--dry-run"))
        cases = [
            pytest.param(case, name, id=f"{case.name}-{name.replace(' ', '_')}")
            for case, name in select(every, option("--part"), option("--dry-run"))
        ]
        metafunc.parametrize(("case", "contender"), cases)


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
def measured(request, device) -> Iterator[Callable[[Problem, Implementation], Row]]:
    """What measures a case: on a GPU a process of its own, and in a dry run too."""
    option = request.config.getoption
    seconds = option("--seconds") or (1.0 if device.type == "cuda" else 0.3)
    if device.type == "cpu" and not option("--dry-run"):
        yield lambda problem, implementation: measure(problem, implementation, rates(device.type), seconds=seconds)
        return
    worker = Worker(rates(device.type), seconds=0.01 if option("--dry-run") else seconds)
    yield lambda problem, implementation: worker.measure(problem, implementation, min(option("--limit"), left(request.config)))
    worker.close()


def left(config: pytest.Config) -> float:
    """Seconds until a case that runs is cut off, 600 at most."""
    until = config.getoption("--until")
    return 600.0 if until is None else max(1.0, until - (time.monotonic() - STARTED))


@pytest.fixture
def seconds_left(request) -> float:
    return left(request.config)


@pytest.fixture(autouse=True)
def _within_budget(request):
    budget = request.config.getoption("--budget")
    if budget is not None and time.monotonic() - STARTED > budget:
        pytest.skip(f"over the budget of {budget:.0f} s")


def pytest_terminal_summary(terminalreporter):
    for opened in RESULTS:
        if new := opened.rows[opened.earlier :]:
            terminalreporter.section(f"measured, and saved in {opened.path.name}")
            terminalreporter.write_line(summary(new))
