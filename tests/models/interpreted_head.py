"""Run by test_fused.py with TRITON_INTERPRET=1: the fused cross entropy on a CPU against the plain one."""

import torch
import torch.nn.functional as F
from torch import nn

from alignx_fast.models import fused

torch.manual_seed(0)
for bias, frozen in ((True, False), (False, False), (False, True)):
    head = nn.Linear(16, 97, bias=bias).requires_grad_(not frozen)
    hidden = torch.randn(37, 16, requires_grad=True)
    labels = torch.randint(0, 97, (37,))
    wanted = [hidden, *(p for p in head.parameters() if p.requires_grad)]
    losses = [fused.fused_cross_entropy(head, hidden, labels, None), F.cross_entropy(head(hidden), labels, reduction="sum")]
    torch.testing.assert_close(*losses)
    # A factor: the step divides by its number of tokens.
    computed, expected = (torch.autograd.grad(0.3 * loss, wanted) for loss in losses)
    for ours, plain in zip(computed, expected, strict=True):
        assert plain.abs().max() > 1e-2
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)
print("equal")
