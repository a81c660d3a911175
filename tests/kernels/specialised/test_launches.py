"""Every launch as a GPU of sm_90 would get it, compiled and not run: the arguments of real calls, specialised as Triton does.

An integer that is 1 becomes a constant, one divisible by 16 an aligned one, None disappears: the interpreter shows none of this, and the
examples of `alignx_kernels.compiled` one choice each. Products of the library are left out.
"""

import pytest
import torch
from alignx_kernels import (
    dispatch,
    info_nce_loss,
    info_nce_triton,
    language_matching_loss,
    language_matching_triton,
    span_mean,
    span_mean_triton,
)
from alignx_kernels.tiles import info_nce_is_small
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

LAUNCH = JITFunction.run


class NoCard:
    """What Triton asks of a driver before a launch."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device=None):
        return 0

    def get_active_torch_device(self):
        return torch.device("cpu")

    def map_python_to_cpp_type(self, kind):
        return kind


@pytest.fixture(autouse=True)
def compiled(monkeypatch):
    """Names of the kernels that were compiled for launches."""
    names = []

    def launch(self, *args, grid, warmup, **options):
        names.append(self.fn.__name__)
        return LAUNCH(self, *args, grid=grid, warmup=True, **options)

    driver.set_active(NoCard())
    monkeypatch.setattr(JITFunction, "run", launch)
    monkeypatch.setattr(dispatch, "INTERPRETED", True)
    monkeypatch.setattr(info_nce_triton, "multiply", lambda *_, **__: None)
    for module in (info_nce_triton, language_matching_triton, span_mean_triton):
        monkeypatch.setattr(module, "architecture", lambda _: 90)
    return names


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (37, 37, 19), (130, 203, 64)], ids=str)
def test_info_nce(shape, symmetric, ids, compiled):
    n, m, d = shape
    queries, keys = (torch.randn(rows, d, dtype=torch.bfloat16, requires_grad=True) for rows in (n, m))
    temperature = torch.tensor(0.1, requires_grad=ids)
    same = {"query_ids": torch.arange(n), "key_ids": torch.arange(m)} if ids else {}
    loss = info_nce_loss(queries, keys, temperature=temperature, symmetric=symmetric, impl="triton", **same)
    loss.backward()
    assert {"statistics_kernel", "slab_kernel" if symmetric else "rescale_kernel"} <= set(compiled)


@pytest.mark.parametrize("symmetric", [False, True])
def test_info_nce_by_descriptors(symmetric, compiled):
    assert not info_nce_is_small(1499, 1501)
    queries, keys = (torch.randn(rows, 64, dtype=torch.bfloat16, requires_grad=True) for rows in (1499, 1501))
    info_nce_loss(queries, keys, symmetric=symmetric, impl="triton").backward()
    assert {"statistics_kernel", "slab_kernel" if symmetric else "rescale_kernel"} <= set(compiled)


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (77, 20), (48, 128)], ids=str)
def test_language_matching(shape, compiled):
    sentences, width = shape
    leaves = [torch.randn(size, requires_grad=True) for size in ((sentences, 32), (width, 64), (width, 64), (2, width))]
    languages = torch.arange(sentences) % 3
    language_matching_loss(leaves[0], languages, *leaves[1:], impl="triton").backward()
    assert compiled == ["language_pairs_forward_kernel", "language_pairs_backward_kernel"]


@pytest.mark.parametrize("spans", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (70, 1), (70, 100), (64, 256)], ids=str)
def test_span_mean(shape, spans, compiled):
    hidden = torch.randn(shape, dtype=torch.bfloat16)
    for layout in (hidden, hidden.T.contiguous().T):
        layout.requires_grad_()
        span_mean(layout, torch.tensor([[0, 1]], dtype=spans), impl="triton").sum().backward()
    assert len(set(compiled)) == 3
