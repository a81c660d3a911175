"""The InfoNCE kernels in Triton's interpreter, against fp64."""

import pytest
import torch
from alignx_kernels import info_nce_loss, pooled_info_nce_loss
from alignx_kernels.common.tiles import Tile
from alignx_kernels.info_nce import launch, plan
from alignx_kernels.info_nce.api import forward_operator, forward_pass
from info_nce_cases import CASES, SHAPES, Case, assert_as_exact_as_eager
from torch._subclasses import FakeTensorMode


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    """Several ragged chunks and tiles from small problems, roots of some chunks kept, and NaN in fresh memory."""
    tile = Tile({"BLOCK_M": 32, "BLOCK_N": 128, "BLOCK_K": 32}, num_warps=4)
    monkeypatch.setattr(plan, "product_tile", lambda *_: tile)
    monkeypatch.setattr(plan, "CHUNK_BYTES", 256 * 4 * 50)
    monkeypatch.setattr(plan, "STATISTICS_ROWS", 50)
    monkeypatch.setattr(plan, "KEPT_BYTES", 256 * 4 * 96)
    for module in (plan, launch):
        monkeypatch.setattr(module, "keeps_all", lambda n, *_: n < 100)
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_fp32_is_as_exact_as_eager(case):
    assert_as_exact_as_eager(case, torch.float32, "triton")


@pytest.mark.parametrize("case", [case for case in CASES if case.n == 37], ids=str)
def test_fp16_is_as_exact_as_eager(case):
    assert_as_exact_as_eager(case, torch.float16, "triton")


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_similarities_are_computed_once_where_all_are_kept(dtype, reduction, monkeypatch):
    """Three chunks of 32 rows, roots kept, among them such that are halved."""
    monkeypatch.setattr(launch, "launch_dlogits", None)
    monkeypatch.setattr(plan, "CHUNK_BYTES", 128 * 4 * 32)
    for temperature in (0.1, 0.01):
        assert_as_exact_as_eager(Case(70, 75, 19, True, 40, reduction, temperature), dtype, "triton")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.n == 130 and case.ids == 40 and case.reduction != "sum"], ids=str
)
def test_similarities_by_the_library_are_as_exact_as_eager(case, dtype, monkeypatch):
    """Strips of 32 rows within the chunks."""
    monkeypatch.setattr(plan, "uses_library", lambda *_: True)
    monkeypatch.setattr(plan, "CHUNK_BYTES", 256 * dtype.itemsize**2 * 70)
    monkeypatch.setattr(plan, "STRIP_BYTES", 256 * 4 * 40)
    if dtype == torch.float32 or case.temperature == 0.1:
        assert_as_exact_as_eager(case, dtype, "triton")


def test_a_backward_under_cotangents_comes_twice():
    queries, keys = torch.randn(40, 8, requires_grad=True), torch.randn(50, 8, requires_grad=True)
    losses = info_nce_loss(queries, keys, reduction="none", impl="triton")
    cotangent = torch.randn(40)
    first, second = (torch.autograd.grad(losses, (queries, keys), cotangent, retain_graph=True) for _ in range(2))
    assert all(torch.equal(*pair) and pair[0].abs().sum() > 0 for pair in zip(first, second, strict=True))


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_fake_tensors_have_the_shapes_of_real_ones(reduction):
    arguments = (torch.randn(40, 8), torch.randn(75, 8), torch.tensor(0.1), None, None, True, reduction, [True] * 3, "triton")
    real = forward_pass(*arguments)
    with FakeTensorMode() as mode:
        fake = forward_operator(*(mode.from_tensor(x) if isinstance(x, torch.Tensor) else x for x in arguments))
    assert [(x.shape, x.dtype) for x in (fake[0], *fake[1])] == [(x.shape, x.dtype) for x in (real[0], *real[1])]


def test_tensor_descriptors(monkeypatch):
    """The loads of sm_90 and later, with every edge ragged."""
    monkeypatch.setattr(plan, "architecture", lambda _: 90)
    monkeypatch.setattr(plan, "is_small", lambda *_: False)
    built = []
    original = plan.TensorDescriptor.from_tensor
    monkeypatch.setattr(plan.TensorDescriptor, "from_tensor", lambda *args: built.append(1) or original(*args))
    assert_as_exact_as_eager(Case(37, 75, 40, symmetric=True, ids=20), torch.float16, "triton")
    assert built


def test_more_row_tiles_than_a_group_holds(monkeypatch):
    monkeypatch.setattr(plan, "STATISTICS_ROWS", 1 << 20)
    monkeypatch.setattr(plan, "CHUNK_BYTES", 1 << 20)
    assert_as_exact_as_eager(Case(290, 300, 20, symmetric=True, ids=30), torch.float32, "triton")


@pytest.mark.parametrize("wanted", ["queries", "keys", "temperature", "nothing"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_only_wanted_products(wanted, symmetric, monkeypatch):
    products = []
    multiply = launch.multiply
    monkeypatch.setattr(launch, "multiply", lambda *args, **options: (products.append(args[2].shape), multiply(*args, **options)))
    given = {"queries": torch.randn(20, 8), "keys": torch.randn(30, 8), "temperature": torch.tensor(0.1)}
    if wanted != "nothing":
        given[wanted].requires_grad_()
    loss = info_nce_loss(given["queries"], given["keys"], temperature=given["temperature"], symmetric=symmetric, impl="triton")
    expected = info_nce_loss(
        given["queries"], given["keys"], temperature=given["temperature"], symmetric=symmetric, impl="reference"
    )
    torch.testing.assert_close(loss, expected)
    if wanted != "nothing":
        gradient, truth = (torch.autograd.grad(x, given[wanted])[0] for x in (loss, expected))
        assert truth.abs().sum() > 0
        torch.testing.assert_close(gradient, truth)
    assert products == {"queries": [(20, 8)], "keys": [(30, 8)]}.get(wanted, [])


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_fp16_rows_of_very_unequal_norms_keep_their_gradient(symmetric, reduction):
    queries, keys = torch.randn(40, 64).half(), torch.randn(60, 64).half()
    queries[7], keys[7] = queries[7] * 1e-4, keys[7] * 1e-4
    cotangent = torch.randn(40) if reduction == "none" else torch.ones(())
    gradients = []
    for dtype, impl in ((torch.float64, "reference"), (torch.float16, "triton")):
        leaves = [x.to(dtype).requires_grad_() for x in (queries, keys)]
        loss = info_nce_loss(*leaves, symmetric=symmetric, reduction=reduction, impl=impl)
        gradients.append(torch.autograd.grad(loss, leaves, cotangent.to(loss.dtype)))
    usual = torch.arange(40) != 7
    for truth, ours in zip(*gradients, strict=True):
        assert truth[:40][usual].norm() > 0
        for rows in (usual, ~usual):
            error = (ours.double() - truth)[:40][rows].norm() / truth[:40][rows].norm()
            assert error <= 4e-3, f"{error:.1e}"


@pytest.mark.parametrize("norm", [1.0, 1e6])
def test_fp32_vectors_take_the_autocast_dtype(norm):
    """Interpreted, that is fp16, whose range the vectors may leave."""
    queries, keys = ((torch.randn(rows, 24) * norm).requires_grad_() for rows in (20, 30))
    with torch.autocast("cpu", dtype=torch.float16):
        loss = info_nce_loss(queries, keys, symmetric=True, impl="triton")
    exact = info_nce_loss(queries, keys, symmetric=True, impl="reference")
    assert loss.dtype == torch.float32
    assert 0 < (loss - exact).abs() < 1e-3 * exact
    for ours, truth in zip(*(torch.autograd.grad(x, (queries, keys)) for x in (loss, exact)), strict=True):
        assert ours.dtype == torch.float32
        assert truth.norm() > 0
        assert (ours - truth).norm() < 2e-3 * truth.norm()


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_means_of_fp32_states_take_the_autocast_dtype(reduction):
    hidden, spans = torch.randn(60, 24, requires_grad=True), torch.arange(60).view(30, 2) + torch.tensor([0, 1])
    exact = pooled_info_nce_loss(hidden, spans[:12], spans[12:], reduction=reduction, impl="reference")
    with torch.autocast("cpu", dtype=torch.float16):
        loss = pooled_info_nce_loss(hidden, spans[:12], spans[12:], reduction=reduction, impl="triton")
    assert 0 < (loss - exact).abs().max() < 1e-3 * exact.max()
    ours, truth = (torch.autograd.grad(x.sum(), hidden)[0] for x in (loss, exact))
    assert ours.dtype == torch.float32
    assert 0 < (ours - truth).norm() < 2e-3 * truth.norm()


def test_fp32_follows_the_precision_that_pytorch_is_set_to(monkeypatch):
    seen = []
    monkeypatch.setattr(
        plan, "product_tile", lambda *args: seen.append(args[-2]) or Tile({"BLOCK_M": 32, "BLOCK_N": 32, "BLOCK_K": 32}, 4)
    )
    queries = torch.randn(20, 8)
    try:
        for precision in ("highest", "high", "medium"):
            torch.set_float32_matmul_precision(precision)
            info_nce_loss(queries, queries, impl="triton")
    finally:
        torch.set_float32_matmul_precision("highest")
    assert seen == [True, False, False]


def test_strided_inputs():
    queries, keys = torch.randn(8, 2 * 37).T[::2], torch.randn(40, 16)[:, ::2]
    rows = torch.randn(80, 8)[::2]
    for pair in ((queries, keys), (queries, rows), (rows[:37], keys)):
        torch.testing.assert_close(info_nce_loss(*pair, impl="triton"), info_nce_loss(*pair, impl="reference"))


@pytest.mark.parametrize("symmetric", [False, True])
def test_nan_shows(symmetric):
    queries, keys = torch.randn(20, 8), torch.randn(30, 8)
    queries[17, 3] = torch.nan
    losses = info_nce_loss(queries, keys, symmetric=symmetric, reduction="none", impl="triton")
    assert losses[17].isnan()
    assert symmetric or losses.isnan().sum() == 1
    assert info_nce_loss(keys[:20], torch.cat([keys, queries]), impl="triton").isnan()


@pytest.mark.parametrize("symmetric", [False, True])
def test_zero_vectors(symmetric):
    queries, keys = torch.randn(20, 8), torch.randn(30, 8)
    queries[2], keys[2], keys[29] = 0, 0, 0
    queries.requires_grad_(), keys.requires_grad_()
    info_nce_loss(queries, keys, symmetric=symmetric, impl="triton").backward()
    assert queries.grad.isfinite().all()
    assert keys.grad.isfinite().all()
    assert (queries.grad[2] == 0).all()
    assert (keys.grad[[2, 29]] == 0).all()
    assert (keys.grad[0] != 0).all()


def test_cosines_of_one_at_low_temperature():
    """Logits of 100 on the diagonal and everywhere: neither overflow nor a loss of the small differences."""
    assert_as_exact_as_eager(Case(*SHAPES[1], temperature=0.004), torch.float32, "triton")
    same = torch.ones(40, 8)
    loss = info_nce_loss(same, same, temperature=0.004, symmetric=True, impl="triton")
    torch.testing.assert_close(loss, torch.tensor(40.0).log(), rtol=1e-5, atol=1e-5)
