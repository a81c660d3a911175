"""InfoNCE over large batches: ours against torch and the kernels of others."""

from benchmarks.cases import run_case

FAMILY = "info_nce"


def test_info_nce(problem, implementation, results, measured):
    run_case(problem, implementation, results, measured)
