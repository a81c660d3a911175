"""Language-matching problems, and the loss with all gradients, for the tests of every implementation."""

import torch
from alignx_kernels import language_matching_loss
from truth import check_against_truth

NAMES = ["loss", "embeddings", "gate", "up", "down"]


def problem(sentences, hidden, width, dtype=torch.float32, device="cpu"):
    """([embeddings, gate, up, down], labels), scaled so that gates leave their linear range and logits spread over a few units."""
    embeddings = torch.randn(sentences, hidden, dtype=torch.float64)
    gate, up = (torch.randn(width, 2 * hidden, dtype=torch.float64) / hidden**0.5 for _ in range(2))
    down = torch.randn(2, width, dtype=torch.float64) * 2 / width**0.5
    labels = torch.randint(0, 3, (sentences,))
    return [leaf.to(device, dtype) for leaf in (embeddings, gate, up, down)], labels.to(device)


def losses_and_gradients(leaves, labels, cotangent, impl, reduction):
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    loss = language_matching_loss(leaves[0], labels, *leaves[1:], reduction=reduction, impl=impl)
    return loss, *torch.autograd.grad(loss, leaves, cotangent.to(loss.dtype))


def check(leaves, labels, impl, reduction, epsilon):
    """Loss and gradients of `impl` under a random cotangent, against fp64 and eager."""
    cotangent = torch.randn((len(labels),) if reduction == "none" else (), dtype=torch.float64, device=labels.device)
    truth = losses_and_gradients([leaf.double() for leaf in leaves], labels, cotangent, "reference", reduction)
    eager = losses_and_gradients(leaves, labels, cotangent, "reference", reduction)
    ours = losses_and_gradients(leaves, labels, cotangent, impl, reduction)
    check_against_truth(NAMES, truth, eager, ours, epsilon)
