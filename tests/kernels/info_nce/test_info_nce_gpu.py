"""InfoNCE on a real GPU: exactness, determinism, memory, addresses, `torch.compile`."""

import pytest
import torch
import torch.nn.functional as F
from alignx_kernels import info_nce_loss
from alignx_kernels.tune import KINDS, multiplied_by
from gpu_steps import assert_compiles_as_one_graph
from info_nce_cases import CASES, Case, assert_as_exact_as_eager

pytestmark = pytest.mark.gpu
DEVICE = "cuda"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("case", [*CASES, Case(2100, 3001, 520, True, 500), Case(2100, 3001, 520, False, 500)], ids=str)
def test_as_exact_as_eager(case, dtype):
    assert_as_exact_as_eager(case, dtype, "triton", DEVICE)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("kind", list(KINDS))
def test_similarities_by_the_library_are_as_exact_as_eager(kind, symmetric):
    with multiplied_by(kind, True, torch.device(DEVICE)):
        assert_as_exact_as_eager(Case(2100, 3001, 520, symmetric, 500), KINDS[kind], "triton", DEVICE)


def test_fp32_vectors_under_autocast_give_what_their_bf16_copies_give():
    queries, keys = (torch.randn(rows, 256, device=DEVICE, requires_grad=True) for rows in (700, 900))
    with torch.autocast("cuda", dtype=torch.bfloat16):
        loss = info_nce_loss(queries, keys)
    expected = info_nce_loss(queries.bfloat16(), keys.bfloat16())
    assert torch.equal(loss, expected)
    gradient, truth = (torch.autograd.grad(x, queries)[0] for x in (loss, expected))
    assert truth.norm() > 0
    assert torch.equal(gradient, truth)


def leaves(n, m, d):
    return [torch.randn(rows, d, device=DEVICE, dtype=torch.bfloat16, requires_grad=True) for rows in (n, m)]


@pytest.mark.parametrize("temperature", [-0.5, 0.0])
@pytest.mark.parametrize("impl", ["triton", "chunked"])
def test_a_temperature_that_is_not_positive_gives_nan(impl, temperature):
    temperature = torch.tensor(temperature, device=DEVICE)
    assert info_nce_loss(*leaves(70, 90, 48), temperature=temperature, impl=impl).isnan()


@pytest.mark.parametrize("symmetric", [False, True])
def test_repeats_bit_for_bit(symmetric):
    inputs = [*leaves(3000, 4500, 256), torch.tensor(0.05, device=DEVICE, requires_grad=True)]

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


def far_problem(rows, width, *, apart, twins=64):
    """[T, width] queries, and keys [rows, width] whose rows lie `apart` elements apart and whose last T rows repeat the first, the positives.

    At temperature 0.05 a query's positive and the twin of that outweigh all other keys: half of the softmax is at the far end.
    """
    keys = torch.randn(rows, apart, device=DEVICE, dtype=torch.bfloat16)[:, :width]
    keys[-twins:] = keys[:twins]
    queries = keys[:twins] + 0.5 * torch.randn(twins, width, device=DEVICE, dtype=torch.bfloat16)
    return queries, keys


def far_truth(queries, keys, block=1 << 14):
    """fp64: the loss of every query, and the gradient of the mean loss at the last keys, as many as queries."""
    unit_q = F.normalize(queries.double(), dim=1)
    twins = len(queries)
    near, far = keys.detach()[:-twins], keys.detach()[-twins:].double().requires_grad_()
    logits = [unit_q @ F.normalize(part.double(), dim=1).T / 0.05 for part in near.split(block)]
    positive = logits[0].diagonal()
    lse = torch.cat([torch.logsumexp(part, 1, keepdim=True) for part in logits], 1)
    losses = torch.cat([lse, unit_q @ F.normalize(far, dim=1).T / 0.05], 1).logsumexp(1) - positive
    return losses.detach(), torch.autograd.grad(losses.mean(), far)[0]


@pytest.mark.parametrize("apart", [8192, 8193], ids=["descriptors", "pointers"])
def test_addresses_beyond_two_to_the_31(apart):
    """The last rows of more than 2^31 elements count, in loss and gradient. Rows of 16,386 bytes cannot have descriptors."""
    torch.cuda.empty_cache()
    if torch.cuda.mem_get_info()[0] < 24 << 30:
        pytest.skip("needs 24 GB")
    queries, keys = far_problem(2**18 + 128, 8192, apart=apart)
    losses, gradient = far_truth(queries, keys)
    assert (losses > 0.6).all()  # log 2: without the far end it would be 0
    found = info_nce_loss(queries, keys, temperature=0.05, reduction="none")
    torch.testing.assert_close(found.double(), losses, rtol=1e-4, atol=1e-4)
    loss = info_nce_loss(queries, keys.requires_grad_(), temperature=0.05)
    torch.testing.assert_close(loss.detach().double(), losses.mean(), rtol=1e-4, atol=1e-4)
    (ours,) = torch.autograd.grad(loss, keys)
    assert gradient.norm() > 0
    assert (ours[-len(queries) :] - gradient).norm() <= 1e-2 * gradient.norm()


def info_nce_step(queries, keys, temperature, ids):
    losses = info_nce_loss(
        queries, keys, temperature=temperature, symmetric=True, query_ids=ids[: len(queries)], key_ids=ids, reduction="none"
    )
    return (losses * torch.linspace(1, 2, len(losses), device=losses.device)).sum()


def test_compiles_as_one_graph():
    inputs = [torch.randn(rows, 96, device=DEVICE, dtype=torch.bfloat16) for rows in (300, 410)]
    inputs.append(torch.tensor(0.07, device=DEVICE))
    assert_compiles_as_one_graph(info_nce_step, inputs, torch.randint(200, (410,), device=DEVICE))
