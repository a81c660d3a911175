"""Language matching over all pairs of sentences: ours against the literal formula and plain torch."""

from benchmarks.cases import run_case

FAMILY = "language_matching"


def test_language_matching(problem, implementation, results, measured):
    run_case(problem, implementation, results, measured)
