"""`python -m alignx_kernels`: what it prints, and that it fails where an implementation is wrong."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
from alignx_kernels import __main__ as command
from alignx_kernels import self_test
from alignx_kernels.info_nce import chunked
from alignx_kernels.span_mean import chunked as span_chunked

OPERATORS = ["span_mean", "info_nce, one direction", "info_nce, both directions", "pooled_info_nce", "language_matching"]


def lines_of_the_command(**environment):
    run = [sys.executable, "-m", "alignx_kernels"]
    output = subprocess.run(run, env={**os.environ, **environment}, check=True, capture_output=True, text=True).stdout
    return output.splitlines()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there the kernels run")
def test_without_a_gpu_it_tests_the_chunked_implementations():
    lines = lines_of_the_command(TRITON_INTERPRET="0")
    assert [line.split()[0] for line in lines[:3]] == ["alignx-kernels", "torch", "triton"]
    assert lines[3:5] == ["GPU none", "implementation chunked, because there is no CUDA GPU"]
    for line, operator in zip(lines[5:10], OPERATORS, strict=True):
        assert line.startswith(operator)
        assert " chunked " in line
        assert line.endswith("ok")
    assert lines[10:] == ["all 5 checks passed"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there the kernels run")
@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="Triton runs on Linux only")
def test_in_the_interpreter_it_tests_the_kernels():
    lines = lines_of_the_command(TRITON_INTERPRET="1")
    assert lines[4].startswith("implementation triton, because TRITON_INTERPRET is set")
    assert [" triton " in line and line.endswith("ok") for line in lines[5:10]] == [True] * 5


@pytest.mark.parametrize("wrong", [lambda true: true * 1.001, lambda true: true * torch.nan], ids=["off", "nan"])
def test_a_wrong_gradient_fails_the_command(wrong, monkeypatch, capsys):
    backward = span_chunked.backward
    monkeypatch.setattr(span_chunked, "backward", lambda *arguments: wrong(backward(*arguments)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main() == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[-1] == "2 of 5 checks FAILED"  # pooled_info_nce goes through the same function
    assert [line.split()[0] for line in printed if line.endswith("FAILED")][:2] == ["span_mean", "pooled_info_nce"]


def test_a_wrong_loss_fails(monkeypatch):
    forward = chunked.forward

    def wrong(*arguments):
        result = forward(*arguments)
        return result._replace(loss_N=result.loss_N + 1e-3)

    monkeypatch.setattr(chunked, "forward", wrong)
    failed = {outcome.name for outcome in self_test.run(torch.device("cpu"), torch.float32) if not outcome.passed}
    assert failed == {"info_nce, one direction", "info_nce, both directions", "pooled_info_nce"}
