"""Means over spans: ours, a loop, and one scatter."""

import torch
from alignx_kernels import span_mean

from benchmarks.implementations import Run, implementation, needs_cuda
from benchmarks.problems import SpanMean

Tensor = torch.Tensor


def _ours(impl: str) -> Run:
    return lambda hidden, spans: span_mean(hidden, spans, impl=impl)


@implementation("span_mean", "alignx", ours=True, limits=needs_cuda)
def alignx(problem: SpanMean) -> Run:
    return _ours("triton")


@implementation("span_mean", "alignx chunked", ours=True)
def alignx_chunked(problem: SpanMean) -> Run:
    return _ours("chunked")


def _few_spans(problem: SpanMean, device: torch.device) -> str | None:
    return "its backward writes all tokens once for every span" if problem.s * problem.t * problem.d > 1 << 36 else None


@implementation("span_mean", "torch loop", limits=_few_spans)
def loop(problem: SpanMean) -> Run:
    return _ours("reference")


@implementation("span_mean", "torch index_add")
def index_add(problem: SpanMean) -> Run:
    """Every token of a span added to its span's row, in fp32; the token lists are made outside of the clock."""
    lengths_S = problem.spans[:, 1] - problem.spans[:, 0]
    row_K = torch.repeat_interleave(torch.arange(problem.s), lengths_S)
    first_K = torch.repeat_interleave(problem.spans[:, 0] - (lengths_S.cumsum(0) - lengths_S), lengths_S)
    token_K = torch.arange(len(row_K)) + first_K
    on_device: dict[torch.device, tuple[Tensor, ...]] = {}

    def run(hidden: Tensor, spans: Tensor) -> Tensor:
        if hidden.device not in on_device:
            on_device[hidden.device] = tuple(x.to(hidden.device) for x in (row_K, token_K, lengths_S))
        rows, tokens, lengths = on_device[hidden.device]
        total_SD = torch.zeros(len(spans), hidden.shape[1], device=hidden.device)
        return (total_SD.index_add(0, rows, hidden[tokens].float()) / lengths[:, None]).to(hidden.dtype)

    return run
