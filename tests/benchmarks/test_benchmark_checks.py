"""The gate in front of every speed: what it lets pass, and what it does not."""

import pytest
import torch
import torch.nn.functional as F
from alignx_kernels.info_nce import reference as info_nce_reference
from alignx_kernels.language_matching import reference as matching_reference

from benchmarks import measure as measuring
from benchmarks import truth
from benchmarks.implementations import REGISTRY, Implementation, find, implementations
from benchmarks.implementations.info_nce import eager
from benchmarks.problems import AUTOCAST, FULL, GPU, InfoNce, LanguageMatching, PooledInfoNce, SpanMean, problems
from benchmarks.rates import Rates
from benchmarks.step.cases import CPU_CASES, GPU_CASES
from benchmarks.step.contenders import BUILDERS

CPU = torch.device("cpu")
SMALL = [
    InfoNce(61, 97, 24, "fp32"),
    InfoNce(61, 61, 24, "fp32", symmetric=True),
    InfoNce(61, 61, 24, "bf16"),
    LanguageMatching(34, 20, "fp32", width=12),
    SpanMean(300, 7, 20, "fp32"),
    PooledInfoNce(700, 31, 24, "fp32", symmetric=True),
    InfoNce(61, 97, 24, AUTOCAST),
]
PEERS = {
    "torch eager",
    "torch.compile",
    "torch linear_cross_entropy",
    "liger",
    "liger sm_90",
    "quack",
    "cut-cross-entropy",
    "inf-cl",
    "memeff",
    "sentence-transformers MNRL",
    "sentence-transformers cached MNRL",
}


def test_every_implementation_is_registered_once():
    names = [(found.family, found.name) for found in REGISTRY]
    assert len(set(names)) == len(names)
    assert {name for family, name in names if family == "info_nce"} > PEERS | {"alignx", "alignx chunked"}
    for family in ("info_nce", "language_matching", "span_mean", "pooled_info_nce"):
        ours = [found.name for found in implementations(family) if found.ours]
        assert ours == ["alignx", "alignx chunked"]
        assert {problem.name for problem in problems(family, on_gpu=True, full=True)} > {
            problem.name for problem in problems(family, on_gpu=True, full=False)
        }
    assert len({problem.name for problem in GPU + FULL}) == len(GPU + FULL), "a problem is listed twice"
    assert {name for case in CPU_CASES + GPU_CASES for name in case.contenders} == set(BUILDERS)


@pytest.mark.parametrize("problem", SMALL, ids=lambda problem: f"{problem.family}-{problem.name}")
def test_what_runs_here_is_right(problem):
    ran = [found for found in implementations(problem.family) if found.obstacle(problem, CPU) is None]
    assert len(ran) >= 3
    for found in ran:
        assert measuring.wrong(measuring.errors(measuring.Task(problem, found, CPU)), problem.dtype) is None, found.name


def test_the_chunked_path_takes_no_time_from_others_on_a_gpu():
    """Its goals are about CPUs."""
    gpu, chunked = torch.device("cuda"), find("info_nce", "alignx chunked")
    large, small = InfoNce(4096, 4096, 4096), InfoNce(2048, 2048, 4096)
    assert "chunked path is for CPUs" in chunked.obstacle(large, gpu)
    assert chunked.obstacle(small, gpu) is None
    assert chunked.obstacle(large, CPU) is None


def _half_the_loss(problem):
    return lambda queries, keys: eager(problem)(queries, keys) / 2


def _gradient_of_positives_alone(problem):
    """The right loss, but the softmax takes no part in the gradient."""

    def run(queries, keys):
        detached = eager(problem)(queries.detach(), keys.detach())
        positive = F.cosine_similarity(queries, keys[: problem.n]).mean() / -0.1
        return detached + positive - positive.detach()

    return run


def _no_gradient_for_keys(problem):
    return lambda queries, keys: eager(problem)(queries, keys.detach())


def _not_a_number(problem):
    return lambda queries, keys: eager(problem)(queries, keys) * torch.nan


@pytest.mark.parametrize(
    ("build", "named"),
    [
        (_half_the_loss, "output"),
        (_gradient_of_positives_alone, "queries"),
        (_no_gradient_for_keys, "keys"),
        (_not_a_number, "output"),
    ],
)
def test_a_wrong_implementation_gets_no_speed(build, named):
    row = measuring.measure(SMALL[2], Implementation("info_nce", "broken", build), Rates(CPU), seconds=0.0)
    assert row["status"] == "wrong"
    assert named in row["reason"]
    assert not {"forward", "forward+backward", "extra_bytes"} & set(row)


@pytest.mark.parametrize("ours", [True, False])
def test_a_failure_is_noted(ours):
    def fails(problem):
        raise RuntimeError("no such kernel\nsecond line")

    row = measuring.measure(SMALL[0], Implementation("info_nce", "broken", fails, ours=ours), Rates(CPU), seconds=0.0)
    assert (row["status"], row["reason"]) == ("failed", "RuntimeError: no such kernel")


@pytest.mark.parametrize("symmetric", [False, True])
def test_the_truth_of_info_nce_is_the_definition(monkeypatch, symmetric):
    monkeypatch.setattr(truth, "BLOCK_ELEMENTS", 97 * 4 * 20)  # blocks that do not divide the rows
    torch.manual_seed(0)
    queries, keys = torch.randn(61, 24), torch.randn(97, 24)
    found = truth.info_nce(queries, keys, temperature=0.1, symmetric=symmetric)
    wide = [x.double().requires_grad_() for x in (queries, keys)]
    loss = info_nce_reference.info_nce_loss(*wide, temperature=0.1, symmetric=symmetric)
    loss.backward()
    for name, expected in zip(("output", "queries", "keys"), (loss, *(x.grad for x in wide)), strict=True):
        assert expected.abs().max() > 0
        torch.testing.assert_close(found[name], expected, rtol=1e-12, atol=1e-14)


def test_the_truth_of_language_matching_is_the_definition(monkeypatch):
    monkeypatch.setattr(truth, "BLOCK_ELEMENTS", 34 * 12 * 16 * 5)
    problem = SMALL[3]
    inputs = problem.inputs(CPU)
    found = problem.truth(inputs)
    wide = {name: x.double().requires_grad_() for name, x in inputs.items() if name != "languages"}
    weights = (wide[name] for name in ("gate", "up", "down"))
    loss = matching_reference.language_matching_loss(wide["embeddings"], inputs["languages"], *weights)
    loss.backward()
    torch.testing.assert_close(found.pop("output"), loss.detach(), rtol=1e-12, atol=1e-14)
    for name, gradient in found.items():
        torch.testing.assert_close(gradient, wide[name].grad, rtol=1e-10, atol=1e-14)


def test_long_truths_are_taken_on_a_smaller_problem():
    rates = Rates(CPU)
    rates.measured["matmul_fp64_flops"] = 4 * 2 * 1024 * 1024 * 64 / measuring.TRUTH_SECONDS
    assert measuring.checkable(InfoNce(4096, 8192, 64), rates) == InfoNce(512, 1024, 64)
    assert measuring.checkable(InfoNce(1024, 1024, 64), rates) == InfoNce(1024, 1024, 64)
