"""Span pooling on a real GPU: bf16, sizes of real training, addresses, determinism, CUDA graphs."""

import pytest
import span_problem
import torch
from alignx_kernels import span_mean
from gpu_steps import assert_no_host_synchronisation_and_cuda_graphs, assert_same_bits_every_time

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


@pytest.fixture
def step():
    """A function that runs one forward and backward pass of a problem of real size."""
    spans_S2, tokens = many_spans(512, 60)
    hidden_TD, cotangent_SD = (span_problem.hidden_states(rows, 2048, torch.bfloat16, device="cuda") for rows in (tokens, 512))
    return lambda: span_problem.means_and_gradient(hidden_TD, spans_S2, cotangent_SD, "triton")


def test_the_same_bits_every_time(step):
    assert_same_bits_every_time(step)


def test_no_host_synchronisation_and_cuda_graphs(step):
    assert_no_host_synchronisation_and_cuda_graphs(step)
