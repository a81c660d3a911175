"""Every launch of span pooling, compiled for an imagined card of sm_90."""

import pytest
import torch
from alignx_kernels import span_mean
from alignx_kernels.span_mean import launch


@pytest.fixture(autouse=True)
def _sm_90(monkeypatch):
    monkeypatch.setattr(launch, "architecture", lambda _: 90)


@pytest.mark.parametrize("spans", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize("shape", [(1, 1), (70, 1), (70, 100), (64, 256)], ids=str)
def test_span_mean(shape, spans, compiled):
    hidden = torch.randn(shape, dtype=torch.bfloat16)
    for layout in (hidden, hidden.T.contiguous().T):
        layout.requires_grad_()
        span_mean(layout, torch.tensor([[0, 1]], dtype=spans), impl="triton").sum().backward()
    assert len(set(compiled)) == 3
