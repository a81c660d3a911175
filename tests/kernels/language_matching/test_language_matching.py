"""Language matching without a GPU: the chunked implementation, its operators, and the public function."""

import subprocess
import sys

import pytest
import torch
from alignx_kernels import language_matching_loss
from alignx_kernels.language_matching import chunked
from alignx_kernels.language_matching.api import forward_operator
from matching_problem import check, losses_and_gradients, problem


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=["fp64", "fp32", "bf16"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("buffer", [1, 1 << 9, 1 << 18], ids=lambda size: f"buffer{size}")
def test_chunked_matches_fp64(monkeypatch, dtype, reduction, buffer):
    monkeypatch.setattr(chunked, "BUFFER_ELEMENTS", buffer)
    check(*problem(23, 17, 20, dtype), None, reduction, epsilon=1e-14 if dtype == torch.float64 else 1e-6)


def test_mixed_dtypes_take_the_widest():
    (embeddings, *weights), labels = problem(9, 6, 4, torch.float64)
    check([embeddings.bfloat16(), *weights], labels, None, "none", epsilon=1e-14)
    assert language_matching_loss(embeddings.bfloat16(), labels, *weights).dtype == torch.float64


def test_loss_and_slope_at_large_logits():
    (embeddings, *weights), labels = problem(7, 4, 8, torch.float64)
    check([embeddings * 100, *weights], labels, None, "none", epsilon=1e-14)


def test_reductions_agree_and_order_and_names_of_languages_do_not_matter():
    (embeddings, *weights), labels = problem(11, 6, 5, torch.float64)

    def loss(embeddings, labels, reduction="none"):
        return language_matching_loss(embeddings, labels, *weights, reduction=reduction)

    rows = loss(embeddings, labels)
    torch.testing.assert_close(loss(embeddings, labels, "sum"), rows.sum())
    torch.testing.assert_close(loss(embeddings, labels, "mean"), rows.sum() / 121)
    torch.testing.assert_close(loss(embeddings, 1000 - labels), rows)
    order = torch.randperm(11)
    torch.testing.assert_close(loss(embeddings[order], labels[order]), rows[order])
    assert not torch.allclose(loss(embeddings, labels.roll(1)), rows)


def test_nan_in_one_sentence_reaches_every_row():
    (embeddings, *weights), labels = problem(9, 4, 8)
    embeddings[4, 1] = torch.nan
    assert language_matching_loss(embeddings, labels, *weights, reduction="none").isnan().all()


def test_operator_registration():
    (embeddings, *_), labels = problem(5, 12, 3)
    args = (embeddings.clone().requires_grad_(), torch.randn(3).requires_grad_(), labels, "chunked")
    torch.library.opcheck(forward_operator, args)


def test_compiles_without_graph_breaks_and_ignores_autocast():
    leaves, labels = problem(9, 6, 4)
    cotangent = torch.randn(9)
    plain = losses_and_gradients(leaves, labels, cotangent, None, "none")
    compiled = torch.compile(language_matching_loss, fullgraph=True, backend="aot_eager")
    leaves = [leaf.requires_grad_() for leaf in leaves]
    loss = compiled(leaves[0], labels, *leaves[1:], reduction="none")
    with torch.autocast("cpu", torch.bfloat16):
        cast = language_matching_loss(leaves[0], labels, *leaves[1:], reduction="none")
    for result in (loss, cast):
        torch.testing.assert_close((result, *torch.autograd.grad(result, leaves, cotangent)), plain)


MEMORY_SCRIPT = """
import resource, torch
from alignx_kernels import language_matching_loss
M, D, I = 1024, 512, 128
leaves = [torch.randn(shape, requires_grad=True) for shape in [(M, D), (I, 2 * D), (I, 2 * D), (2, I)]]
labels = torch.arange(M) % 5
language_matching_loss(leaves[0][:8], labels[:8], *leaves[1:]).backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
language_matching_loss(leaves[0], labels, *leaves[1:]).backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_memory_grows_with_sentences_and_not_with_pairs():
    kilobytes = int(subprocess.run([sys.executable, "-c", MEMORY_SCRIPT], check=True, capture_output=True, text=True).stdout)
    # The pairs alone would take M * M * 2D * 4 = 4 GB; the gradients and projections are 9 MB.
    assert kilobytes < 40_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"embeddings_MD": torch.randn(5)}, r"embeddings_MD has shape \(5,\); it must be 2-D"),
        ({"gate": torch.ones(4, 12, dtype=torch.int32)}, "gate is torch.int32"),
        ({"gate": torch.randn(4, 6)}, r"gate has shape \(4, 6\); it must be \[I, 2D\] = \[4, 12\]"),
        ({"up": torch.randn(3, 12)}, r"up has shape \(3, 12\); it must be \[I, 2D\] like gate = \[4, 12\]"),
        ({"down": torch.randn(1, 4)}, r"down has shape \(1, 4\); it must be \[2, I\] = \[2, 4\]"),
        ({"languages_M": torch.zeros(6, dtype=torch.int64)}, r"languages_M has shape \(6,\); it must be \[5\]"),
        ({"languages_M": torch.zeros(5)}, "languages_M is torch.float32; it must be int32 or int64"),
        ({"embeddings_MD": torch.zeros(0, 6), "languages_M": torch.zeros(0, dtype=torch.int64)}, "There are 0 sentences"),
        ({"reduction": "avg"}, "reduction is 'avg'; it must be one of 'mean', 'sum', 'none'"),
        ({"impl": "cuda"}, "impl is 'cuda'; it must be one of"),
        ({"impl": "triton"}, "impl='triton' cannot run here: a tensor is on cpu"),
        ({"down": torch.randn(2, 4, device="meta")}, "different devices .*down on meta"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_mistakes_are_named(change, message):
    (embeddings, gate, up, down), labels = problem(5, 6, 4)
    arguments = {"embeddings_MD": embeddings, "languages_M": labels, "gate": gate, "up": up, "down": down, **change}
    with pytest.raises(ValueError, match=message):
        language_matching_loss(**arguments)
