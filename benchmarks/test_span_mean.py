"""Span pooling: ours against plain torch, and against the rate of a copy."""

from benchmarks.cases import run_case

FAMILY = "span_mean"


def test_span_mean(problem, implementation, results, measured):
    run_case(problem, implementation, results, measured)
