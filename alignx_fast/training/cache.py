"""The gradients of a loss at the sentence vectors of a whole step, cached micro-batch by micro-batch (GradCache, arXiv 2101.06983)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from alignx_fast.losses.base import Loss, Pairs, Vectors


@dataclass(frozen=True)
class CachedLoss:
    """A loss taken over the whole step, and what sends its gradient back through the micro-batches."""

    value: torch.Tensor
    """The loss without its weight, detached."""
    gradients: list[Vectors]
    """Gradient of the weighted loss at the vectors of every micro-batch."""
    surrogate: torch.Tensor
    """A scalar whose gradient at the loss's own parameters is that of the weighted loss, so that loss scaling treats them as all others."""


def build_cache(loss: Loss, vectors: Sequence[Vectors], pairs: Pairs) -> CachedLoss:
    """The loss over all vectors of the step and its gradients, split by micro-batch.

    Args:
        vectors: what the loss has read of every micro-batch, without a graph.
        pairs: the pairs of the step, in the same order.
    """
    leaves = [_wide(whole).requires_grad_() for whole in concatenate(vectors)]
    parameters = [parameter for parameter in loss.parameters() if parameter.requires_grad]
    value = loss.of_vectors(tuple(leaves), pairs)
    gradients = torch.autograd.grad(loss.weight * value, [*leaves, *parameters], allow_unused=True)
    at_vectors = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, gradients, strict=False)]
    surrogate = torch.zeros((), device=value.device)
    for parameter, gradient in zip(parameters, gradients[len(leaves) :], strict=True):
        if gradient is not None:
            surrogate = surrogate + (parameter * gradient).sum()
    sizes = [len(read[0]) for read in vectors]
    parts = [torch.split(gradient, sizes) for gradient in at_vectors]
    return CachedLoss(value.detach(), list(zip(*parts, strict=True)), surrogate)


def concatenate(vectors: Sequence[Vectors]) -> Vectors:
    """The vectors of several micro-batches as those of one."""
    return tuple(torch.cat(parts) for parts in zip(*vectors, strict=True))


def cached_gradient(vectors: Vectors, gradients: Vectors) -> torch.Tensor:
    """A scalar whose gradient at the vectors is the cached one."""
    total = torch.zeros((), device=vectors[0].device)
    for vector, gradient in zip(vectors, gradients, strict=True):
        total = total + (vector * gradient).sum()
    return total


def _wide(vectors: torch.Tensor) -> torch.Tensor:
    """fp16 as fp32: gradients at single vectors are small, and the loss is scaled only when they are sent back."""
    return vectors.float() if vectors.dtype == torch.float16 else vectors
