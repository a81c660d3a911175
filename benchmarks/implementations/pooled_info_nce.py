"""InfoNCE of pooled spans: ours as one operator and as two, and plain torch."""

import torch
from alignx_kernels import info_nce_loss, pooled_info_nce_loss, span_mean

from benchmarks.implementations import Run, implementation, info_nce, needs_cuda
from benchmarks.implementations import span_mean as pooling
from benchmarks.problems import TEMPERATURE, PooledInfoNce

Tensor = torch.Tensor


def _ours(problem: PooledInfoNce, impl: str) -> Run:
    options = {"temperature": TEMPERATURE, "symmetric": problem.symmetric, "impl": impl}
    return lambda hidden, sources, targets: pooled_info_nce_loss(hidden, sources, targets, **options)


@implementation("pooled_info_nce", "alignx", ours=True, limits=needs_cuda)
def alignx(problem: PooledInfoNce) -> Run:
    return _ours(problem, "triton")


@implementation("pooled_info_nce", "alignx chunked", ours=True)
def alignx_chunked(problem: PooledInfoNce) -> Run:
    return _ours(problem, "chunked")


@implementation("pooled_info_nce", "span_mean, info_nce_loss")
def in_turn(problem: PooledInfoNce) -> Run:
    """Our two operators; both sides are pooled in one call."""

    def run(hidden: Tensor, sources: Tensor, targets: Tensor) -> Tensor:
        queries, keys = span_mean(hidden, torch.cat([sources, targets])).chunk(2)
        return info_nce_loss(queries, keys, temperature=TEMPERATURE, symmetric=problem.symmetric)

    return run


@implementation("pooled_info_nce", "torch index_add, eager")
def eager(problem: PooledInfoNce) -> Run:
    means, loss = pooling.index_add(problem.pooling), info_nce.eager(problem.contrast)

    def run(hidden: Tensor, sources: Tensor, targets: Tensor) -> Tensor:
        both = means(hidden, torch.stack([sources, targets], 1).flatten(0, 1))
        return loss(both[0::2], both[1::2])

    return run
