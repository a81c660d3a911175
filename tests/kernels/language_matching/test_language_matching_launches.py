"""Every launch of language matching, compiled for an imagined card of sm_90."""

import pytest
import torch
from alignx_kernels import language_matching_loss
from alignx_kernels.language_matching import launch


@pytest.fixture(autouse=True)
def _sm_90(monkeypatch):
    monkeypatch.setattr(launch, "architecture", lambda _: 90)


@pytest.mark.parametrize("shape", [(1, 1), (2, 1), (77, 20), (48, 128)], ids=str)
def test_language_matching(shape, compiled):
    sentences, width = shape
    leaves = [torch.randn(size, requires_grad=True) for size in ((sentences, 32), (width, 64), (width, 64), (2, width))]
    languages = torch.arange(sentences) % 3
    language_matching_loss(leaves[0], languages, *leaves[1:], impl="triton").backward()
    assert compiled == ["language_pairs_forward_kernel", "language_pairs_backward_kernel"]
