"""Pooling and InfoNCE as one operator, against the two one after the other and plain torch."""

from benchmarks.cases import run_case

FAMILY = "pooled_info_nce"


def test_pooled_info_nce(problem, implementation, results, measured):
    run_case(problem, implementation, results, measured)
