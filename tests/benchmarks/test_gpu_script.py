"""The script that measures on a GPU: what it starts, and when it installs again. A stub stands for Python, except in the dry run."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import benchmarks
from benchmarks.implementations import implementations
from benchmarks.parts import PARTS, select, tiny
from benchmarks.problems import problems
from benchmarks.step.cases import GPU_CASES
from benchmarks.verdict import verdict

SCRIPT = Path(benchmarks.__file__).parent / "gpu.sh"
STUB = """#!/usr/bin/env bash
echo "$@ | PYTHONPATH=$PYTHONPATH" >> "$CALLS"
if [[ "$*" == *"pip install"* ]]; then
  for target in "$@"; do [[ $last == --target ]] && mkdir -p "$target" && touch "$target/package.py"; last=$target; done
  exit "${PIP_EXIT:-0}"
fi
[[ "$*" == *" tests/training "* ]] && exit "${TRAINING_EXIT:-0}"
exit 0
"""


@pytest.fixture
def run(tmp_path):
    """Runs the script with the stub in place of Python: its result, and the stub's calls."""
    stub, calls = tmp_path / "python", tmp_path / "calls"
    stub.write_text(STUB)
    stub.chmod(0o755)

    def start(*arguments, **variables):
        calls.unlink(missing_ok=True)
        kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "WHEELS", "SITE")}
        environment = {**kept, "PYTHON": str(stub), "CALLS": str(calls), **variables}
        done = subprocess.run(
            ["bash", SCRIPT, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=60
        )
        return done, calls.read_text().splitlines() if calls.exists() else []

    return start


def test_all_parts_run_from_a_plain_checkout(run, tmp_path):
    results = tmp_path / "results"
    done, calls = run(results, CALLS=str(tmp_path / "calls"))
    assert done.returncode == 0, done.stderr
    root = SCRIPT.parents[1]
    assert all(call.endswith(f"PYTHONPATH={root}:{root}/kernels") for call in calls)
    for part in PARTS:
        assert sum(f"--part {part} " in call for call in calls) == 1, part
    tests = [call for call in calls if " -m gpu" in call]
    assert len(tests) == 6
    assert not [call for call in tests if "tests/kernels" in call and "tests/training" in call], "one process for both"
    assert "benchmarks.verdict" in calls[-1]
    assert {file.suffix for file in results.iterdir()} == {".log"}, "more than a log, beside what Python writes"
    jsons = {call.split("--results ")[1].split()[0] for call in calls if "--results" in call}
    assert len(jsons) == 1, "more than one file of results"


def test_a_part_ends_within_ten_minutes(run, tmp_path):
    _, calls = run(tmp_path, "headline", "steps1")
    for call in calls[:-1]:
        budget, until = (int(call.split(f"{option} ")[1].split()[0]) for option in ("--budget", "--until"))
        assert budget < until <= 520


@pytest.mark.parametrize(("code", "state"), [("0", "met"), ("1", "missed")])
def test_tests_are_goals_too(run, tmp_path, code, state):
    _, calls = run(tmp_path, "tests", TRAINING_EXIT=code)
    assert f"every kernel test of a GPU passes=met every training test of a GPU passes={state} " in calls[-1]
    assert "kernel test of a GPU passes=open" in run(tmp_path, "small")[1][-1]


def test_wheels_are_installed_once_and_again_after_a_failure(run, tmp_path):
    wheels, site = tmp_path / "wheels", tmp_path / "site"
    wheels.mkdir()
    (wheels / "one.whl").touch()
    variables = {"WHEELS": str(wheels), "SITE": str(site)}

    def installs(**more):
        done, calls = run(tmp_path / "results", "small", **variables, **more)
        return done, [call for call in calls if "pip install" in call], [call for call in calls if "--part" in call]

    done, installed, ran = installs(PIP_EXIT="1")
    assert done.returncode == 1
    assert (len(installed), len(ran)) == (1, 0)
    assert f"the wheels of {wheels} could not be installed into {site}" in done.stderr
    assert (site / "package.py").exists(), "half an install is there"
    for expected in (1, 0):
        done, installed, ran = installs()
        assert (done.returncode, len(installed), len(ran)) == (0, expected, 1)
        assert f"PYTHONPATH={site}:" in ran[0]
    (wheels / "two.whl").touch()
    assert len(installs()[1]) == 1, "other wheels than were installed"


def test_an_unknown_part_starts_nothing(run, tmp_path):
    done, calls = run(tmp_path, "small", "smal")
    assert (done.returncode, calls) == (2, [])
    assert done.stderr.startswith("unknown part: smal; usage: ")
    assert run()[0].returncode == 2


def test_every_case_is_in_a_part():
    every = [
        (problem, found.name)
        for family in ("info_nce", "language_matching", "span_mean", "pooled_info_nce")
        for problem in problems(family, on_gpu=True, full=False)
        for found in implementations(family)
    ]
    every += [(case, name) for case in GPU_CASES for name in case.contenders]
    parts = [part for part in PARTS if part != "infonce"]  # it measures again what `headline` had no time for
    taken = [case for part in parts for case in select(every, part, dry_run=False)]
    assert sorted(map(str, taken)) == sorted(map(str, every))
    assert set(select(every, "infonce", dry_run=False)) < set(select(every, "headline", dry_run=False))
    for part in PARTS:
        tried = select(every, part, dry_run=True)
        assert tried
        assert len(set(tried)) == len(tried)


def test_tiny_problems_keep_their_kind():
    for problem in problems("info_nce", on_gpu=True, full=True):
        small = tiny(problem)
        assert (small.dtype, small.symmetric, small.n == small.m) == (problem.dtype, problem.symmetric, problem.n == problem.m)
        assert small.n * small.m * small.d < 2**15
    assert {tiny(case).shape for case in GPU_CASES} == {"tiny"}


def test_the_verdict_has_a_line_for_every_goal(tmp_path):
    lines = verdict(tmp_path, ["every test passes=missed"])
    assert lines[0] == "missed  every test passes"
    assert {line.split()[0] for line in lines[1:]} == {"open"}
    assert len(set(lines)) == len(lines)


@pytest.mark.parametrize("parts", [["cce"], pytest.param([], marks=pytest.mark.slow)], ids=["one part", "all parts"])
def test_the_dry_run_measures(parts, tmp_path):
    """In earnest, from end to end: all parts take minutes, and the one for a peer that is hardly ever installed seconds."""
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1"}
    command = ["bash", SCRIPT, "--dry-run", tmp_path, *parts]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"\d+ (failed|errors?)\b", done.stdout), done.stdout
    assert {file.suffix for file in tmp_path.iterdir()} <= {".log", ".json"}
    assert len(list(tmp_path.iterdir())) <= 2
    assert parts or "24x24x16-one-bf16 | alignx chunked |" in done.stdout
    assert "open    InfoNCE 65,536 x 65,536 x 4,096, bf16, one direction: time over the floor" in done.stdout
