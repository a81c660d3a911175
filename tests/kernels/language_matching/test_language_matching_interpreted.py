"""The language-matching kernels in Triton's interpreter, against fp64."""

import pytest
import torch
from alignx_kernels import language_matching_loss
from alignx_kernels.language_matching import launch
from alignx_kernels.language_matching.tiles import PAIRS
from matching_problem import check, losses_and_gradients, problem

EPSILON = 1e-6  # a few fp32 roundings, of sums over up to M * I terms


@pytest.mark.parametrize(
    ("sentences", "hidden", "width"),
    [(1, 3, 1), (23, 17, 20), (37, 16, 64), (33, 8, 128), (18, 20, 130), (19, 8, 300)],
    ids=["M1-D3-I1", "M23-D17-I20", "M37-D16-I64", "M33-D8-I128", "M18-D20-I130", "M19-D8-I300"],
)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_forward_and_gradients_match_fp64(sentences, hidden, width, reduction):
    check(*problem(sentences, hidden, width), "triton", reduction, EPSILON)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_half_precision_inputs_are_computed_in_fp32(dtype):
    leaves, labels = problem(21, 16, 40, dtype)
    check(leaves, labels, "triton", "sum", EPSILON)
    loss = language_matching_loss(leaves[0], labels, *leaves[1:], impl="triton")
    exact = language_matching_loss(leaves[0].double(), labels, *[leaf.double() for leaf in leaves[1:]], impl="reference")
    assert loss.dtype == torch.float32
    assert (loss - exact).abs() < 1e-6 * exact


def test_embeddings_and_weights_of_different_dtypes_and_strides():
    (embeddings, gate, up, down), labels = problem(21, 16, 40)
    embeddings = embeddings.half().T.contiguous().T
    up = torch.stack([up, up], dim=2).flatten(1)[:, ::2]
    down = down.T.contiguous().T
    assert not any(leaf.is_contiguous() for leaf in (embeddings, up, down))
    check([embeddings, gate, up, down], labels.int(), "triton", "none", EPSILON)


@pytest.mark.parametrize("strip", [1, 5, 64])
def test_strips_of_any_length_give_the_same_sums(monkeypatch, strip):
    def make_plan(rows, width, device):
        return launch.LaunchPlan(blocks=-(-rows // 16), strips=-(-rows // strip), strip=strip, tile=PAIRS[128][80])

    monkeypatch.setattr(launch, "make_plan", make_plan)
    check(*problem(21, 8, 24), "triton", "none", EPSILON)


@pytest.mark.filterwarnings("ignore:overflow encountered")  # 2^x of a large gate is infinite, and its sigmoid 0
def test_nan_in_one_sentence_reaches_every_row_and_large_values_stay_finite():
    (embeddings, *weights), labels = problem(9, 4, 8)
    poisoned = embeddings.clone()
    poisoned[4, 1] = torch.nan
    assert language_matching_loss(poisoned, labels, *weights, reduction="none", impl="triton").isnan().all()
    outputs = losses_and_gradients([embeddings * 1e4, *weights], labels, torch.ones(9), "triton", "none")
    assert all(output.isfinite().all() for output in outputs)


def test_only_the_gradients_asked_for():
    (embeddings, gate, up, down), labels = problem(9, 4, 8)
    language_matching_loss(embeddings.requires_grad_(), labels, gate, up, down, impl="triton").backward()
    assert embeddings.grad.abs().max() > 0
    assert gate.grad is up.grad is down.grad is None
    language_matching_loss(embeddings.detach(), labels, gate, up, down.requires_grad_(), impl="triton").backward()
    assert down.grad.abs().max() > 0
