"""Span pooling and language matching on a real GPU: bf16, sizes of real training, determinism, CUDA graphs, memory."""

import matching_problem
import pytest
import span_problem
import torch
from alignx_kernels import language_matching_loss, span_mean

pytestmark = pytest.mark.gpu
DTYPES = [torch.bfloat16, torch.float16, torch.float32]


def many_spans(count, length):
    """Disjoint spans of 1 to `length` tokens with gaps between, shuffled, and the number of tokens."""
    bounds = torch.randint(1, length + 1, (2 * count,)).cumsum(0).view(count, 2)
    return bounds[torch.randperm(count)].cuda(), int(bounds.max()) + 7


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "sliced"])
@pytest.mark.parametrize("width", [1, 100, 4096], ids=lambda width: f"D{width}")
def test_span_mean_matches_fp64(dtype, layout, width):
    spans_S2, tokens = many_spans(64, 90)
    span_problem.check(span_problem.hidden_states(tokens, width, dtype, layout, "cuda"), spans_S2, "triton", epsilon=1e-6)


def test_span_mean_addresses_beyond_two_to_the_31():
    hidden_TD = torch.zeros(600_000, 4096, dtype=torch.bfloat16, device="cuda")
    hidden_TD[-3:] = torch.randn(3, 4096, device="cuda")
    spans_S2 = torch.tensor([(0, 5), (599_997, 600_000)], device="cuda")
    leaf_TD = hidden_TD.requires_grad_()
    means_SD = span_mean(leaf_TD, spans_S2)
    torch.testing.assert_close(means_SD[1], hidden_TD[-3:].float().mean(0).bfloat16())
    means_SD.sum().backward()
    assert leaf_TD.grad.count_nonzero() == 8 * 4096


def test_bad_spans_show_as_nan():
    hidden_TD = torch.randn(8, 4, device="cuda", requires_grad=True)
    spans_S2 = torch.tensor([(0, 2), (5, 5), (-3, 2), (6, 1 << 40), (1, 3)], device="cuda")
    means_SD = span_mean(hidden_TD, spans_S2)
    assert means_SD.isnan().all(1).tolist() == [False, True, True, True, False]
    means_SD[[0, 4]].sum().backward()
    assert hidden_TD.grad.isnan().any(1).tolist() == [False, True] + [False] * 6


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("sentences", "width"), [(1, 128), (77, 20), (256, 128), (130, 256), (90, 512), (50, 600)], ids=str)
def test_language_matching_matches_fp64(dtype, sentences, width):
    leaves, labels = matching_problem.problem(sentences, 96, width, dtype, "cuda")
    matching_problem.check(leaves, labels, None, "none", epsilon=2e-6)


def matching_step(leaves, labels):
    return matching_problem.losses_and_gradients(leaves, labels, torch.ones((), device="cuda"), "triton", "mean")


def pooling_step(hidden_TD, spans_S2, cotangent_SD):
    return span_problem.means_and_gradient(hidden_TD, spans_S2, cotangent_SD, "triton")


@pytest.fixture(params=["span_mean", "language_matching"])
def step(request):
    """A function that runs one forward and backward pass of a problem of real size."""
    if request.param == "language_matching":
        leaves, labels = matching_problem.problem(1024, 2048, 128, torch.bfloat16, "cuda")
        return lambda: matching_step(leaves, labels)
    spans_S2, tokens = many_spans(512, 60)
    hidden_TD, cotangent_SD = (span_problem.hidden_states(rows, 2048, torch.bfloat16, device="cuda") for rows in (tokens, 512))
    return lambda: pooling_step(hidden_TD, spans_S2, cotangent_SD)


def test_the_same_bits_every_time(step):
    first = step()
    for _ in range(5):
        for a, b in zip(first, step(), strict=True):
            assert torch.equal(a, b)


def test_no_host_synchronisation_and_cuda_graphs(step):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):  # warm up: compilation and workspaces
        expected = step()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for result in captured:
        result.fill_(torch.nan)
    graph.replay()
    for a, b in zip(expected, captured, strict=True):
        assert torch.equal(a, b)


def test_language_matching_stores_no_pairs():
    leaves, labels = matching_problem.problem(8192, 1024, 128, torch.bfloat16, "cuda")
    leaves = [leaf.requires_grad_() for leaf in leaves]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    language_matching_loss(leaves[0], labels, *leaves[1:]).backward()
    # One fp32 value per pair would already be 256 MB; the embeddings and their gradient in fp32 are 64 MB, the projections 16 MB.
    assert torch.cuda.max_memory_allocated() - before < 240 << 20
