"""InfoNCE without a GPU: the chunked implementation, properties of the loss, its operators, and the public function."""

import pytest
import torch
from alignx_kernels import info_nce_loss
from alignx_kernels.info_nce import chunked
from hypothesis import given, settings
from hypothesis import strategies as st
from info_nce_cases import CASES, assert_as_exact_as_eager
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_chunked_is_as_exact_as_eager(case, dtype, monkeypatch):
    monkeypatch.setattr(chunked, "CHUNK_ELEMENTS", 64 * case.m)  # several chunks, the last one ragged
    assert_as_exact_as_eager(case, dtype, "chunked")


@pytest.mark.parametrize("kept", [0, 64, 128])
@pytest.mark.parametrize("case", [case for case in CASES if case.n == 130 and case.ids == 40], ids=str)
def test_chunked_with_some_similarities_kept_is_as_exact_as_eager(case, kept, monkeypatch):
    monkeypatch.setattr(chunked, "CHUNK_ELEMENTS", 64 * case.m)
    monkeypatch.setattr(chunked, "KEPT_ELEMENTS", kept * case.m)
    assert_as_exact_as_eager(case, torch.float32, "chunked")


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("kept", [0, 64, 130])
def test_similarities_that_are_kept_are_not_computed_again(kept, reduction, monkeypatch):
    """Chunks of 64 of 130 rows: three products for the loss, and those of the chunks that were not kept for the gradients."""
    computed = []
    compute = chunked._Products._compute
    monkeypatch.setattr(chunked._Products, "_compute", lambda *args: computed.append(1) or compute(*args))
    monkeypatch.setattr(chunked, "CHUNK_ELEMENTS", 64 * 150)
    monkeypatch.setattr(chunked, "KEPT_ELEMENTS", kept * 150)
    queries, keys = torch.randn(130, 8, requires_grad=True), torch.randn(150, 8)
    info_nce_loss(queries, keys, symmetric=True, reduction=reduction).sum().backward()
    expected = {0: 3, 64: 2 if reduction == "mean" else 3, 130: 0}[kept]
    assert len(computed) == 3 + expected


def test_reference_is_cross_entropy():
    queries, keys = torch.randn(7, 5, dtype=torch.float64), torch.randn(9, 5, dtype=torch.float64)
    cosines = torch.nn.functional.cosine_similarity(queries[:, None], keys[None], dim=-1)
    expected = torch.nn.functional.cross_entropy(cosines / 0.2, torch.arange(7))
    torch.testing.assert_close(info_nce_loss(queries, keys, temperature=0.2, impl="reference"), expected)


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_chunked_gradients_match_finite_differences(symmetric, reduction):
    queries, keys = (torch.randn(rows, 3, dtype=torch.float64, requires_grad=True) for rows in (4, 6))
    temperature = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    options = {"symmetric": symmetric, "reduction": reduction, "query_ids": torch.arange(4) % 3, "key_ids": torch.arange(6) % 3}

    def loss(queries, keys, temperature):
        return info_nce_loss(queries, keys, temperature=temperature, impl="chunked", **options)

    torch.autograd.gradcheck(loss, (queries, keys, temperature))


def problem(seed, n=12, m=17, d=6):
    generator = torch.Generator().manual_seed(seed)
    queries, keys = (torch.randn(rows, d, generator=generator, dtype=torch.float64) for rows in (n, m))
    return queries, keys, torch.randint(5, (n,), generator=generator), torch.randint(5, (m,), generator=generator)


options = st.fixed_dictionaries({"symmetric": st.booleans(), "temperature": st.sampled_from([0.01, 0.1, 2.0])})
quick = settings(max_examples=25, deadline=None)


@quick
@given(st.integers(0, 2**31), options, st.permutations(range(12)))
def test_order_of_pairs_is_irrelevant(seed, options, order):
    queries, keys, query_ids, key_ids = problem(seed)
    ordered = {"query_ids": query_ids[order], "key_ids": torch.cat([key_ids[order], key_ids[12:]])}
    loss = info_nce_loss(queries, keys, query_ids=query_ids, key_ids=key_ids, **options)
    again = info_nce_loss(queries[order], torch.cat([keys[order], keys[12:]]), **ordered, **options)
    torch.testing.assert_close(again, loss)


@quick
@given(st.integers(0, 2**31), options, st.sampled_from([2.0, 0.125, 3e-5]), st.sampled_from([2.0, 1e6]))
def test_length_of_vectors_is_irrelevant(seed, options, query_factor, key_factor):
    queries, keys, *_ = problem(seed)
    scaled = info_nce_loss(queries * query_factor, keys * key_factor, **options)
    torch.testing.assert_close(scaled, info_nce_loss(queries, keys, **options))


@quick
@given(st.integers(0, 2**31), options)
def test_masked_negatives_change_nothing(seed, options):
    queries, keys, *_ = problem(seed)
    loss = info_nce_loss(queries, keys, **options)
    # Every query appears among the extra keys, marked as having the same text.
    more, query_ids, key_ids = torch.cat([keys, queries[:1].repeat(3, 1)]), torch.zeros(12).long(), torch.arange(20) + 1
    key_ids[17:] = 0
    torch.testing.assert_close(info_nce_loss(queries, more, query_ids=query_ids, key_ids=key_ids, **options), loss)
    assert info_nce_loss(queries, more, **options) > loss


@quick
@given(st.integers(0, 2**31), st.sampled_from([0.02, 0.3]))
def test_symmetric_is_the_mean_of_both_directions(seed, temperature):
    queries, keys, query_ids, key_ids = problem(seed, m=12)
    there = info_nce_loss(queries, keys, query_ids=query_ids, key_ids=key_ids, temperature=temperature)
    back = info_nce_loss(keys, queries, query_ids=key_ids, key_ids=query_ids, temperature=temperature)
    both = info_nce_loss(queries, keys, query_ids=query_ids, key_ids=key_ids, temperature=temperature, symmetric=True)
    torch.testing.assert_close(both, (there + back) / 2)


@pytest.mark.parametrize("impl", ["reference", "chunked"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_zero_vectors_have_no_gradient_and_spoil_nothing(impl, symmetric):
    queries, keys = torch.randn(6, 4), torch.randn(8, 4)
    queries[2], keys[2], keys[7] = 0, 0, 0
    queries.requires_grad_(), keys.requires_grad_()
    loss = info_nce_loss(queries, keys, symmetric=symmetric, reduction="none", impl=impl)
    loss.sum().backward()
    assert loss.isfinite().all()
    assert queries.grad.isfinite().all()
    assert keys.grad.isfinite().all()
    assert (queries.grad[2] == 0).all()
    assert (keys.grad[[2, 7]] == 0).all()
    assert (queries.grad[0] != 0).all()
    assert (keys.grad[0] != 0).all()


@pytest.mark.parametrize("impl", ["reference", "chunked"])
def test_nan_shows(impl):
    queries, keys = torch.randn(6, 4), torch.randn(8, 4)
    queries[1, 2] = torch.nan
    assert info_nce_loss(queries, keys, impl=impl).isnan()
    assert info_nce_loss(keys[:6], queries.repeat(2, 1), impl=impl).isnan()


@pytest.mark.parametrize("symmetric", [False, True])
def test_gradients_nobody_asked_for_are_not_computed(symmetric, monkeypatch):
    products = []
    monkeypatch.setattr(chunked._Gradients, "__init__", _recording(products))
    queries, keys = torch.randn(6, 4), torch.randn(8, 4)
    info_nce_loss(queries, keys, symmetric=symmetric, temperature=torch.tensor(0.1, requires_grad=True)).backward()
    with torch.no_grad():
        info_nce_loss(queries.requires_grad_(), keys, symmetric=symmetric)
    assert products == []
    info_nce_loss(queries, keys, symmetric=symmetric).backward()
    assert products == [(True, False)]
    assert queries.grad.abs().sum() > 0
    assert keys.grad is None


def _recording(products):
    original = chunked._Gradients.__init__

    def init(self, chunks, wanted, dtype):
        products.append((wanted.queries, wanted.keys))
        original(self, chunks, wanted, dtype)

    return init


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_backward_twice_gives_the_same(reduction):
    queries, keys = torch.randn(6, 4, requires_grad=True), torch.randn(8, 4, requires_grad=True)
    loss = info_nce_loss(queries, keys, reduction=reduction)
    cotangent = torch.randn(loss.shape)
    first = torch.autograd.grad(loss, (queries, keys), cotangent, retain_graph=True)
    second = torch.autograd.grad(loss, (queries, keys), cotangent)
    assert all(torch.equal(*pair) and pair[0].abs().sum() > 0 for pair in zip(first, second, strict=True))


def test_strided_inputs():
    queries, keys = torch.randn(4, 12).T[::2], torch.randn(9, 8)[:, ::2]
    torch.testing.assert_close(info_nce_loss(queries, keys), info_nce_loss(queries.contiguous(), keys.contiguous()))


def test_fp16_gradients_survive_a_loss_scale():
    queries, keys = torch.randn(300, 64).half().requires_grad_(), torch.randn(300, 64).half().requires_grad_()
    (info_nce_loss(queries, keys) * 1024).backward()
    exact = [tensor.detach().double().requires_grad_() for tensor in (queries, keys)]
    (info_nce_loss(*exact, impl="reference") * 1024).backward()
    for ours, truth in zip((queries, keys), exact, strict=True):
        torch.testing.assert_close(ours.grad.double(), truth.grad, rtol=1e-3, atol=1e-6)


def test_autocast_changes_nothing():
    queries, keys = torch.randn(20, 8, requires_grad=True), torch.randn(30, 8)
    expected = torch.autograd.grad(info_nce_loss(queries, keys, symmetric=True), queries)[0]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = info_nce_loss(queries, keys, symmetric=True)
        assert loss.dtype == torch.float32
        assert torch.equal(torch.autograd.grad(loss, queries)[0], expected)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("dynamic", [False, True])
def test_compiles_to_the_same(symmetric, reduction, dynamic):
    def step(queries, keys, temperature, ids):
        loss = info_nce_loss(
            queries * 2,
            keys,
            temperature=temperature.exp(),
            symmetric=symmetric,
            query_ids=ids,
            key_ids=ids,
            reduction=reduction,
        )
        return (loss * torch.linspace(1, 2, loss.numel())).sum()

    inputs = [torch.randn(20, 8, requires_grad=True) for _ in range(2)] + [torch.tensor(-2.0, requires_grad=True)]
    ids = torch.randint(9, (20,))
    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    expected = torch.autograd.grad(step(*inputs, ids), inputs)
    actual = torch.autograd.grad(compiled(*inputs, ids), inputs)
    assert all(gradient.abs().sum() > 0 for gradient in actual)
    torch.testing.assert_close(actual, expected)


def test_operators_keep_their_promises():
    arguments = (torch.randn(5, 4), torch.randn(6, 4), torch.tensor(0.1), None, None, True, "mean", [True, True, True], "chunked")
    torch.library.opcheck(torch.ops.alignx_kernels.info_nce_forward, arguments)
    statistics = [torch.randn(rows) for rows in (5, 5, 6, 5)]
    arguments = (*arguments[:5], statistics, torch.randn(5), True, [True, False, False], "chunked")
    torch.library.opcheck(torch.ops.alignx_kernels.info_nce_backward, arguments)


@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("symmetric", [False, True])
def test_checkpointing_around_it(symmetric, reduction):
    queries, keys = (torch.randn(rows, 8, dtype=torch.float64, requires_grad=True) for rows in (5, 7))

    def loss(queries, keys):
        return info_nce_loss(queries * 2, keys, symmetric=symmetric, reduction=reduction).square().sum()

    plain = torch.autograd.grad(loss(queries, keys), (queries, keys))
    again = torch.autograd.grad(checkpoint(loss, queries, keys, use_reentrant=False), (queries, keys))
    assert all(gradient.abs().sum() > 0 and torch.equal(gradient, other) for gradient, other in zip(plain, again, strict=True))


@pytest.mark.parametrize("symmetric", [False, True])
def test_second_derivatives_are_refused_and_not_wrong(symmetric):
    queries, keys = (torch.randn(rows, 8, requires_grad=True) for rows in (5, 7))
    loss = info_nce_loss(queries, keys, symmetric=symmetric) + queries.square().sum()
    (gradient,) = torch.autograd.grad(loss, queries, create_graph=True)
    with pytest.raises(RuntimeError, match="no second derivative"):
        gradient.square().sum().backward()


@pytest.mark.parametrize("symmetric", [False, True])
def test_shapes_without_values(symmetric):
    queries, keys = (torch.empty(rows, 8, device="meta", requires_grad=True) for rows in (5, 7))
    loss = info_nce_loss(queries, keys, symmetric=symmetric)
    loss.backward()
    assert (loss.shape, queries.grad.shape, keys.grad.shape) == ((), (5, 8), (7, 8))


def test_the_reference_compiles_with_a_temperature_that_learns():
    temperature = torch.tensor(0.2, requires_grad=True)
    torch._dynamo.reset()
    compiled = torch.compile(
        lambda t: info_nce_loss(X, X.flip(0), temperature=t, impl="reference"), fullgraph=True, backend="aot_eager"
    )
    torch.testing.assert_close(compiled(temperature), info_nce_loss(X, X.flip(0), temperature=0.2, impl="reference"))


X = torch.randn(6, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"queries_ND": X[0]}, r"queries_ND has shape \(4,\)"),
        ({"keys_MD": X.long()}, "keys_MD is torch.int64"),
        ({"keys_MD": X[:, :3]}, r"\(6, 4\).*\(6, 3\).*equal"),
        ({"keys_MD": X.double()}, "torch.float32 and keys_MD torch.float64"),
        ({"keys_MD": X.to("meta")}, "keys_MD on meta"),
        ({"keys_MD": X[:5]}, "6 queries and 5 keys"),
        ({"queries_ND": X[:0]}, "0 queries and 6 keys"),
        ({"temperature": 0.0}, "temperature is 0.0"),
        ({"temperature": float("nan")}, "temperature is nan"),
        ({"temperature": torch.ones(2)}, r"shape \(2,\)"),
        ({"temperature": torch.tensor([-0.5])}, "temperature is -0.5"),
        ({"temperature": torch.tensor(0.0), "impl": "reference"}, "temperature is 0.0"),
        ({"query_ids": torch.arange(6)}, "both or neither"),
        ({"query_ids": torch.arange(6), "key_ids": torch.arange(5)}, r"key_ids has shape \(5,\)"),
        ({"query_ids": torch.arange(6.0), "key_ids": torch.arange(6)}, "query_ids is torch.float32"),
        ({"reduction": "max"}, "reduction is 'max'"),
        ({"impl": "cuda"}, "impl is 'cuda'"),
        ({"impl": "triton"}, "impl='triton' cannot run here"),
    ],
)
def test_mistakes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        info_nce_loss(**{"queries_ND": X, "keys_MD": X, **arguments})


def test_a_temperature_of_nan_from_a_model_that_diverged_gives_a_loss_of_nan():
    assert info_nce_loss(X, X, temperature=torch.tensor(torch.nan)).isnan()


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_the_dispatcher_sees_the_operators_where_it_must(symmetric, reduction):
    """The dispatcher is passed by only where it need not see a call: under a dispatch mode, or with fake tensors, the operators are opaque."""
    seen = []

    class Recorder(TorchDispatchMode):
        def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
            seen.append(str(operator))
            return operator(*args, **(kwargs or {}))

    def gradient(queries, keys):
        return torch.autograd.grad(info_nce_loss(queries, keys, symmetric=symmetric, reduction=reduction).sum(), queries)[0]

    inputs = torch.randn(6, 4, requires_grad=True), torch.randn(8, 4)
    expected = gradient(*inputs)
    with Recorder():
        assert torch.equal(gradient(*inputs), expected)
    assert "alignx_kernels.info_nce_forward.default" in seen
    assert ("alignx_kernels.info_nce_backward.default" in seen) == (reduction == "none")
    assert not any("mm" in name for name in seen)
    with FakeTensorMode():
        assert gradient(torch.empty(6, 4, requires_grad=True), torch.empty(8, 4)).shape == (6, 4)
