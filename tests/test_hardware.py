"""Number formats on machines of every kind."""

import pytest
import torch

from alignx_fast import hardware
from alignx_fast.config import BUILTIN_TINY, ModelSettings


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"avx512_f": True}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_products_on_a_cpu(capabilities: dict[str, bool], expected: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """bf16 only where the CPU has instructions for it: elsewhere it is slower than fp32."""
    monkeypatch.setattr(hardware, "on_gpu", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    real, tiny = ModelSettings(path="some/model", tuning="lora"), ModelSettings(path=BUILTIN_TINY, tuning="lora")
    assert hardware.product_dtype(real) == hardware.weight_dtype(real) == expected
    assert hardware.product_dtype(tiny) == hardware.weight_dtype(tiny) == torch.float32
    full = real.model_copy(update={"tuning": "full"})
    assert (hardware.product_dtype(full), hardware.weight_dtype(full)) == (expected, torch.float32)
    named = real.model_copy(update={"dtype": "float32"})
    assert hardware.product_dtype(named) == hardware.weight_dtype(named) == torch.float32


def test_products_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU multiplies in its fastest format, whatever the weights are in."""
    monkeypatch.setattr(hardware, "on_gpu", lambda: True)
    for works, expected in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(hardware, "bf16_works", lambda works=works: works)
        assert hardware.product_dtype(ModelSettings(path="some/model", dtype="float32")) == expected
        assert hardware.product_dtype(ModelSettings(path=BUILTIN_TINY)) == expected
