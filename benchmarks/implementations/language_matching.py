"""Language matching: ours, the literal formula, and the split projection in plain torch."""

import torch
import torch.nn.functional as F
from alignx_kernels import language_matching_loss

from benchmarks.implementations import Run, implementation, needs_cuda
from benchmarks.problems import LanguageMatching

Tensor = torch.Tensor


def _ours(impl: str) -> Run:
    def run(embeddings: Tensor, gate: Tensor, up: Tensor, down: Tensor, languages: Tensor) -> Tensor:
        return language_matching_loss(embeddings, languages, gate, up, down, impl=impl)

    return run


@implementation("language_matching", "alignx", ours=True, limits=needs_cuda)
def alignx(problem: LanguageMatching) -> Run:
    return _ours("triton")


@implementation("language_matching", "alignx chunked", ours=True)
def alignx_chunked(problem: LanguageMatching) -> Run:
    return _ours("chunked")


@implementation("language_matching", "expand and concatenate")
def expand(problem: LanguageMatching) -> Run:
    """The literal formula, which stores all pairs."""
    return _ours("reference")


def split_projection(embeddings: Tensor, gate: Tensor, up: Tensor, down: Tensor, languages: Tensor) -> Tensor:
    """Each sentence projected once, [M, M, I] stored."""
    d = embeddings.shape[1]
    wide = embeddings.float()
    x_MMI = (wide @ gate[:, :d].T)[:, None] + (wide @ gate[:, d:].T)[None]
    v_MMI = (wide @ up[:, :d].T)[:, None] + (wide @ up[:, d:].T)[None]
    z_MM2 = (F.silu(x_MMI) * v_MMI) @ down.T
    same_MM = languages[:, None] == languages[None]
    return F.cross_entropy(z_MM2.flatten(0, 1), same_MM.long().flatten())


@implementation("language_matching", "torch eager, projected once")
def eager(problem: LanguageMatching) -> Run:
    return split_projection


@implementation("language_matching", "torch.compile, projected once", limits=needs_cuda)
def compiled(problem: LanguageMatching) -> Run:
    torch._dynamo.reset()
    return torch.compile(split_projection, dynamic=False)
