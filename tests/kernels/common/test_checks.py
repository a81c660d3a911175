"""What all operators share: choice of implementation, validation, launch settings."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from alignx_kernels import choose_implementation
from alignx_kernels.common import checks, dispatch, tiles


def test_cpu_tensors_run_chunked_unless_told_otherwise():
    tensor = torch.randn(2)
    assert choose_implementation(None, tensor) == "chunked"
    assert choose_implementation("reference", tensor) == "reference"


def test_the_interpreter_takes_cpu_tensors_but_not_fp64(monkeypatch):
    monkeypatch.setattr(dispatch, "INTERPRETED", True)
    assert choose_implementation(None, torch.randn(2), torch.arange(2)) == "triton"
    assert choose_implementation(None, torch.randn(2).double()) == "chunked"
    with pytest.raises(ValueError, match=r"a tensor is torch.float64; cast it to bfloat16, float16 or float32"):
        choose_implementation("triton", torch.randn(2).double())


def test_a_gpu_too_old_for_the_kernels_takes_the_chunked_path(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(major=7))
    old = SimpleNamespace(device=torch.device("cuda", 0), is_cuda=True, dtype=torch.float16, is_floating_point=lambda: True)
    assert choose_implementation(None, old) == "chunked"
    with pytest.raises(ValueError, match="older than compute capability"):
        choose_implementation("triton", old)


def test_without_triton_the_message_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(dispatch, "HAS_TRITON", False)
    assert choose_implementation(None, torch.randn(2)) == "chunked"
    with pytest.raises(ValueError, match=r"triton is not installed; `pip install triton`"):
        choose_implementation("triton", torch.randn(2))


@pytest.mark.parametrize("temperature", [0.0, -0.1, float("nan"), float("inf")])
def test_a_temperature_is_positive_and_finite(temperature):
    with pytest.raises(ValueError, match=rf"temperature is {temperature}; it must be a positive number"):
        checks.check_temperature(temperature)


def test_a_temperature_tensor_has_one_floating_point_element():
    checks.check_temperature(torch.tensor([[0.1]]))
    for wrong in (torch.tensor([0.1, 0.2]), torch.tensor(1)):
        with pytest.raises(ValueError, match="it must be a number or a floating-point tensor of one element"):
            checks.check_temperature(wrong)


@pytest.mark.parametrize(
    ("capability", "arch"),
    [
        ((7, 5), 80),
        ((8, 0), 80),
        ((8, 6), 86),
        ((8, 7), 86),
        ((8, 9), 89),
        ((9, 0), 90),
        ((10, 0), 100),
        ((10, 3), 100),
        ((12, 1), 120),
    ],
)
def test_an_unknown_card_takes_the_settings_of_the_next_older_one(monkeypatch, capability, arch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    tiles.architecture.cache_clear()
    assert tiles.architecture(torch.device("cuda")) == arch


WITHOUT_TRITON = """
import sys
sys.modules["triton"] = None  # import fails, as on a system Triton does not support
import torch
from alignx_kernels import info_nce_loss, language_matching_loss, span_mean
rows = torch.randn(6, 4, requires_grad=True)
means = span_mean(rows, torch.tensor([(0, 2), (3, 6)]))
loss = info_nce_loss(means, means.flip(0))
loss += language_matching_loss(means, torch.arange(2), torch.randn(3, 8), torch.randn(3, 8), torch.randn(2, 3))
loss.backward()
assert rows.grad.abs().sum() > 0
"""


def test_everything_runs_where_triton_is_missing():
    subprocess.run([sys.executable, "-c", WITHOUT_TRITON], check=True)
