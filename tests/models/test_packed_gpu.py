"""Packed attention on a real GPU: FlashAttention inside torch, and its package where installed, against one padded row per sequence."""

from collections.abc import Callable

import pytest
import torch

from alignx_fast.models import attention, packed

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]

DEVICE = "cuda"
LENGTHS = (1, 7, 64, 33, 129, 300)
HEADS, KEY_HEADS = 8, 2
NAMES = ("output", "query", "key", "value")


@pytest.fixture(params=["varlen", "flash_attn"])
def implementation(request: pytest.FixtureRequest) -> packed.Implementation:
    if reason := attention.available()[request.param]:
        pytest.skip(f"{request.param} {reason}")
    return request.param


def problem(width: int, dtype: torch.dtype) -> list[torch.Tensor]:
    """Query, key and value as a model gives them, [1, heads, T, width], and a random cotangent [1, T, heads, width]."""
    generator = torch.Generator().manual_seed(width)
    tokens = sum(LENGTHS)
    shapes = [(1, heads, tokens, width) for heads in (HEADS, KEY_HEADS, KEY_HEADS)] + [(1, tokens, HEADS, width)]
    return [torch.randn(shape, generator=generator).bfloat16().to(DEVICE, dtype) for shape in shapes]


def boundaries() -> torch.Tensor:
    return torch.tensor([0, *LENGTHS], device=DEVICE).cumsum(0).int()


Compute = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, int | None, float], torch.Tensor]


def by(implementation: packed.Implementation) -> Compute:
    def compute(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None, scale: float) -> torch.Tensor:
        options = {"cu_seq_lens_q": boundaries(), "max_length_q": max(LENGTHS), "sliding_window": window, "scaling": scale}
        return packed.packed_attention(implementation, torch.nn.Module(), query, key, value, None, **options)[0]

    return compute


def padded(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window: int | None, scale: float) -> torch.Tensor:
    tokens_first = (x[0].transpose(0, 1) for x in (query, key, value))
    return packed.padded_attention(packed.Problem(*tokens_first, boundaries(), max(LENGTHS), scale, 0.0, window, None))[None]


def results(compute: Compute, width: int, dtype: torch.dtype, window: int | None) -> list[torch.Tensor]:
    """Output and gradients in fp64, computed in `dtype`."""
    *inputs, cotangent = problem(width, dtype)
    inputs = [x.requires_grad_() for x in inputs]
    output = compute(*inputs, window, 1.3 * width**-0.5)  # not the default scale, which nobody would miss
    return [x.detach().double() for x in (output, *torch.autograd.grad(output, inputs, cotangent))]


@pytest.mark.parametrize("window", [None, 16], ids=["whole", "window"])
@pytest.mark.parametrize("width", [64, 80, 84, 128, 256, 512])
def test_packed_equals_padded(
    implementation: packed.Implementation, width: int, window: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against fp64 it errs about as the padded rows do in bf16; widths that no FlashAttention takes go through these."""
    truth = results(padded, width, torch.float64, window)
    same_dtype = results(padded, width, torch.bfloat16, window)
    calls, inner = [], packed.padded_attention
    monkeypatch.setattr(packed, "padded_attention", lambda problem: calls.append(1) or inner(problem))
    computed = results(by(implementation), width, torch.bfloat16, window)
    assert len(calls) == (width > 256 or width % 8 != 0)
    for name, exact, other, ours in zip(NAMES, truth, same_dtype, computed, strict=True):
        assert exact.norm() > 0
        error, allowed = (ours - exact).norm() / exact.norm(), 2 * (other - exact).norm() / exact.norm() + 1e-3
        assert error <= allowed, f"{name}: {error:.2e}, allowed {allowed:.2e}"
        assert allowed < 0.03, f"{name}: {allowed:.2e} would let a mistake pass"
