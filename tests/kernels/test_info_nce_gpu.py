"""InfoNCE on a real GPU: exactness, determinism, memory, CUDA graphs."""

import pytest
import torch
from alignx_kernels import info_nce_loss, pooled_info_nce_loss
from info_nce_cases import CASES, Case, assert_as_exact_as_eager

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("case", [*CASES, Case(2100, 3001, 520, True, 500), Case(2100, 3001, 520, False, 500)], ids=str)
def test_as_exact_as_eager(case, dtype):
    assert_as_exact_as_eager(case, dtype, "triton", "cuda")


def leaves(n, m, d):
    return [torch.randn(rows, d, device="cuda", dtype=torch.bfloat16, requires_grad=True) for rows in (n, m)]


@pytest.mark.parametrize("temperature", [-0.5, 0.0])
@pytest.mark.parametrize("impl", ["triton", "chunked"])
def test_a_temperature_that_is_not_positive_gives_nan(impl, temperature):
    temperature = torch.tensor(temperature, device="cuda")
    assert info_nce_loss(*leaves(70, 90, 48), temperature=temperature, impl=impl).isnan()


@pytest.mark.parametrize("symmetric", [False, True])
def test_repeats_bit_for_bit(symmetric):
    inputs = [*leaves(3000, 4500, 256), torch.tensor(0.05, device="cuda", requires_grad=True)]

    def step():
        loss = info_nce_loss(*inputs[:2], temperature=inputs[2], symmetric=symmetric)
        return loss, *torch.autograd.grad(loss, inputs)

    first = step()
    for _ in range(5):
        assert all(torch.equal(*pair) for pair in zip(first, step(), strict=True))


@pytest.mark.parametrize("symmetric", [False, True])
def test_memory_stays_far_below_n_times_m(symmetric):
    queries, keys = leaves(49152, 49152, 512)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    info_nce_loss(queries, keys, symmetric=symmetric).backward()
    extra = torch.cuda.max_memory_allocated() - before
    assert extra < 1 << 30  # one N x M in bf16 takes 4.5 GB


def test_addresses_beyond_two_to_the_31():
    """The last rows of 2^31 elements: equal losses for equal vectors, wherever they lie."""
    n, d = 2**18 + 128, 8192
    if torch.cuda.mem_get_info()[0] < 24 << 30:
        pytest.skip("needs 24 GB")
    keys = torch.randn(n, d, device="cuda", dtype=torch.bfloat16)
    queries = keys[-64:].clone()
    rolled = keys.roll(64, 0)
    del keys
    losses = info_nce_loss(queries, rolled, reduction="none")
    chunked = info_nce_loss(queries[:4], rolled, reduction="none", impl="chunked")
    torch.testing.assert_close(losses[:4], chunked, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("symmetric", [False, True])
def test_cuda_graph(symmetric):
    hidden = torch.randn(4000, 256, device="cuda", dtype=torch.bfloat16, requires_grad=True)
    starts = torch.arange(0, 4000, 10, device="cuda")
    spans = torch.stack([starts, starts + 7], 1)

    def step():
        loss = pooled_info_nce_loss(hidden, spans[:200], spans[200:], symmetric=symmetric)
        return loss, torch.autograd.grad(loss, hidden)[0]

    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        step()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    with torch.no_grad():
        hidden.normal_()
    graph.replay()
    expected = step()
    assert expected[1].abs().sum() > 0
    assert all(torch.equal(*pair) for pair in zip(captured, expected, strict=True))
