"""Runs each file of `interpreted/` and `specialised/` in a pytest of its own, the former with Triton's interpreter on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILES = sorted(file for folder in ("interpreted", "specialised") for file in (Path(__file__).parent / folder).glob("test_*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: f"{file.parent.name}-{file.stem}")
def test_apart(file):
    environment = {**os.environ, "TRITON_INTERPRET": str(int(file.parent.name == "interpreted")), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, f"{' '.join(command)}\n{run.stdout[-8000:]}\n{run.stderr[-2000:]}"
