"""Pooled InfoNCE on a real GPU: a CUDA graph of forward and backward."""

import pytest
import torch
from alignx_kernels import pooled_info_nce_loss

pytestmark = pytest.mark.gpu
DEVICE = "cuda"


@pytest.mark.parametrize("symmetric", [False, True])
def test_cuda_graph(symmetric):
    hidden = torch.randn(4000, 256, device=DEVICE, dtype=torch.bfloat16, requires_grad=True)
    starts = torch.arange(0, 4000, 10, device=DEVICE)
    spans = torch.stack([starts, starts + 7], 1)

    def step():
        loss = pooled_info_nce_loss(hidden, spans[:200], spans[200:], symmetric=symmetric)
        return loss, torch.autograd.grad(loss, hidden)[0]

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        hidden.normal_()
    graph.replay()
    expected = step()
    assert expected[1].abs().sum() > 0
    assert all(torch.equal(*pair) for pair in zip(captured, expected, strict=True))
