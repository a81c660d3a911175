"""Language matching on a real GPU: bf16, sizes of real training, determinism, CUDA graphs, memory, `torch.compile`."""

import matching_problem
import pytest
import torch
from alignx_kernels import language_matching_loss
from gpu_steps import (
    assert_compiles_as_one_graph,
    assert_no_host_synchronisation_and_cuda_graphs,
    assert_same_bits_every_time,
)

pytestmark = pytest.mark.gpu
DTYPES = [torch.bfloat16, torch.float16, torch.float32]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("sentences", "width"), [(1, 128), (77, 20), (256, 128), (130, 256), (90, 512), (50, 600)], ids=str)
def test_language_matching_matches_fp64(dtype, sentences, width):
    leaves, labels = matching_problem.problem(sentences, 96, width, dtype, "cuda")
    matching_problem.check(leaves, labels, None, "none", epsilon=2e-6)


@pytest.fixture
def step():
    """A function that runs one forward and backward pass of a problem of real size."""
    leaves, labels = matching_problem.problem(1024, 2048, 128, torch.bfloat16, "cuda")
    cotangent = torch.ones((), device="cuda")
    return lambda: matching_problem.losses_and_gradients(leaves, labels, cotangent, "triton", "mean")


def test_the_same_bits_every_time(step):
    assert_same_bits_every_time(step)


def test_no_host_synchronisation_and_cuda_graphs(step):
    assert_no_host_synchronisation_and_cuda_graphs(step)


def test_language_matching_stores_no_pairs():
    leaves, labels = matching_problem.problem(8192, 1024, 128, torch.bfloat16, "cuda")
    leaves = [leaf.requires_grad_() for leaf in leaves]
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    language_matching_loss(leaves[0], labels, *leaves[1:]).backward()
    # One fp32 value per pair would already be 256 MB; the embeddings and their gradient in fp32 are 64 MB, the projections 16 MB.
    assert torch.cuda.max_memory_allocated() - before < 240 << 20


def matching_step(embeddings, gate, up, down, labels):
    losses = language_matching_loss(embeddings, labels, gate, up, down, reduction="none")
    return (losses * torch.linspace(1, 2, len(losses), device=losses.device)).mean()


def test_compiles_as_one_graph():
    leaves, labels = matching_problem.problem(300, 96, 128, torch.bfloat16, "cuda")
    assert_compiles_as_one_graph(matching_step, leaves, labels)
