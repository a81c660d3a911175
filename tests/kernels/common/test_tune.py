"""`python -m alignx_kernels tune`: what it makes of times; the times themselves need a GPU."""

import os
import subprocess
import sys

import pytest
import torch
from alignx_kernels import tune
from alignx_kernels.info_nce import tiles
from alignx_kernels.tune import Case, Times


@pytest.mark.skipif(torch.cuda.is_available(), reason="there it measures")
def test_without_a_gpu_it_says_so_in_one_sentence():
    command = [sys.executable, "-m", "alignx_kernels", "tune"]
    run = subprocess.run(command, capture_output=True, text=True, env=os.environ)
    assert (run.returncode, run.stdout.strip()) == (1, tune.NO_CARD)


def measured(library_wins):
    return {case: Times(1.0, 0.5 if library_wins(case) else 2.0) for case in tune.cases()}


def test_the_table_says_from_which_size_on_the_library_is_faster():
    times = measured(lambda case: case.kind == "16-bit" and case.d >= 2048 and case.rows >= 16384)
    assert tune.thresholds(times) == {"16-bit": (2048, 16384**2)}
    assert tune.thresholds(measured(lambda case: False)) == {}
    assert tune.thresholds(measured(lambda case: True)) == dict.fromkeys(tune.KINDS, (512, 4096**2))


def test_a_gain_within_the_noise_is_none():
    assert tune.thresholds({case: Times(1.0, 0.99) for case in tune.cases()}) == {}


def test_lack_of_memory_is_no_gain():
    assert tune.thresholds({case: Times(float("inf"), float("inf")) for case in tune.cases()}) == {}


def test_a_way_is_forced_for_the_measurement_only():
    cpu = torch.device("cpu")  # counts as the oldest architecture
    before = {arch: dict(rules) for arch, rules in tiles.LIBRARY_FROM.items()}
    precision = torch.backends.cuda.matmul.fp32_precision
    with tune.multiplied_by("tf32", True, cpu):
        assert tiles.uses_library("tf32", 1, 1, 1, 80)
        assert not tiles.uses_library("fp32", 1 << 20, 1 << 20, 8192, 80)
        assert torch.backends.cuda.matmul.fp32_precision == "tf32"
    with tune.multiplied_by("16-bit", False, cpu):
        assert not tiles.uses_library("16-bit", 1 << 20, 1 << 20, 8192, 80)
    assert before == tiles.LIBRARY_FROM
    assert precision == torch.backends.cuda.matmul.fp32_precision


def test_lines_of_the_table_align():
    lines = [tune.row(case, Times(0.5, 0.123)) for case in (Case("tf32", 512, 4096), Case("16-bit", 4096, 32768))]
    assert len({len(line) for line in lines}) == 1
    assert "123.00 ms" in lines[0]
