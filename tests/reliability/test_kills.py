"""Runs that are really killed, at any time and at any file operation, checkpoint writes included: each resumes bit for bit."""

import os
import random
import signal
import time
from pathlib import Path

import pytest
from support.commands import Commands
from support.killed import KILLED, WEIGHTS, Whole, at_operation

from alignx_fast.contents import sha256

SHORT, LONG = 1, 50
"""Runs in the default tests and in all; each is killed twice."""
SEEDS = [*range(SHORT), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(SHORT, LONG))]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_that_was_killed_twice_ends_with_the_same_weights(
    seed: int, commands: Commands, whole: Whole, tmp_path: Path
) -> None:
    """Once at a time, once at a file operation, in either order; the second kill hits the run as it resumes."""
    rng = random.Random(seed)
    run, kinds = tmp_path / "run", rng.sample(("time", "operation"), 2)
    command = ("train", whole.settings, "--output", run, "--resume")
    for kind in kinds:
        if kind == "time":
            process = commands.start(*command)
            time.sleep(rng.uniform(0.02, 0.9) * whole.seconds)
            os.kill(process, signal.SIGKILL)
            ended = commands.end()
        else:
            # Resuming takes fewer operations than the whole run.
            last = whole.operations if kind == kinds[0] else whole.operations // 4
            ended = commands.run(*command, first=at_operation(rng.randint(1, last), run))
        assert ended.code in (KILLED, 0), ended.err
    ended = commands.run(*command)
    assert ended.code == 0, ended.err
    assert sha256(run / WEIGHTS) == whole.weights
