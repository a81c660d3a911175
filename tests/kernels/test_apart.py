"""Runs each interpreted file and each file of launches in a pytest of its own, the former with Triton's interpreter on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FILES = sorted(file for kind in ("interpreted", "launches") for file in Path(__file__).parent.glob(f"*/test_*_{kind}.py"))


def test_both_kinds_are_found():
    assert {file.stem.rpartition("_")[2] for file in FILES} == {"interpreted", "launches"}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem.removeprefix("test_"))
def test_apart(file):
    pytest.importorskip("triton", reason="Triton runs on Linux only")
    environment = {**os.environ, "TRITON_INTERPRET": str(int(file.stem.endswith("interpreted"))), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(file)]
    run = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert run.returncode == 0, f"{' '.join(command)}\n{run.stdout[-8000:]}\n{run.stderr[-2000:]}"
