"""The head's cross entropy in chunks against the plain one in fp64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from alignx_fast.models import chunked_head
from alignx_fast.models.chunked_head import chunked_cross_entropy

ROWS, WIDTH, CLASSES = 37, 24, 101


def plain(head: nn.Linear, hidden_KD: torch.Tensor, labels_K: torch.Tensor, softcap: float | None) -> torch.Tensor:
    """All logits at once."""
    logits_KV = head(hidden_KD)
    if softcap:
        logits_KV = softcap * torch.tanh(logits_KV / softcap)
    return F.cross_entropy(logits_KV, labels_K, reduction="sum")


@pytest.mark.parametrize("rows_at_once", [1, 5, 36, 37, 1000])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("bias", [False, True])
def test_loss_and_gradients(monkeypatch: pytest.MonkeyPatch, rows_at_once: int, softcap: float | None, bias: bool) -> None:
    """Equal in fp64 for every way to cut the rows, also where the loss is scaled afterwards."""
    monkeypatch.setattr(chunked_head, "LOGITS_PER_CHUNK", rows_at_once * CLASSES)
    torch.manual_seed(0)
    head = nn.Linear(WIDTH, CLASSES, bias=bias, dtype=torch.float64)
    labels_K = torch.randint(CLASSES, (ROWS,))
    found = {}
    for name, loss in (("chunked", chunked_cross_entropy), ("plain", plain)):
        hidden_KD = torch.randn(ROWS, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
        head.zero_grad()
        value = loss(head, hidden_KD, labels_K, softcap)
        (0.37 * value).backward()
        found[name] = [value.detach(), hidden_KD.grad, *(p.grad for p in head.parameters())]
    for chunked, expected in zip(found["chunked"], found["plain"], strict=True):
        torch.testing.assert_close(chunked, expected, rtol=1e-12, atol=1e-12)


def test_frozen_head_and_no_rows() -> None:
    """A frozen head gets no gradient; without a label the loss is zero and can be sent back."""
    head = nn.Linear(WIDTH, CLASSES).requires_grad_(False)
    hidden_KD = torch.randn(ROWS, WIDTH, requires_grad=True)
    chunked_cross_entropy(head, hidden_KD[:0], torch.zeros(0, dtype=torch.long), None).backward()
    assert hidden_KD.grad is not None
    assert not hidden_KD.grad.any()
    chunked_cross_entropy(head, hidden_KD, torch.zeros(ROWS, dtype=torch.long), None).backward()
    assert hidden_KD.grad.any()
    assert head.weight.grad is None


def test_bf16_and_autocast() -> None:
    """In bf16, by weights or by autocast, the loss is summed in fp32 and near the plain one; an fp32 weight gets an fp32 gradient."""
    torch.manual_seed(0)
    head, hidden_KD = nn.Linear(WIDTH, CLASSES), torch.randn(ROWS, WIDTH)
    labels_K = torch.randint(CLASSES, (ROWS,))
    expected = plain(head, hidden_KD, labels_K, None)
    expected.backward()
    gradient = head.weight.grad
    head.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        value = chunked_cross_entropy(head, hidden_KD.bfloat16(), labels_K, None)
    value.backward()
    assert (value.dtype, head.weight.grad.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(value, expected, rtol=1e-3, atol=0)
    assert (head.weight.grad - gradient).norm() < 0.01 * gradient.norm()
    assert chunked_cross_entropy(head.bfloat16(), hidden_KD.bfloat16(), labels_K, None).dtype == torch.float32
