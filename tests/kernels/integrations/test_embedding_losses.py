"""The losses of the integrations against their literal formulas in fp64; none of the other libraries is needed."""

import pytest
import torch
from alignx_kernels.integrations import embedding_losses, row_chunks
from literal_losses import guided, multiple_negatives, sigmoid
from torch.utils._python_dispatch import TorchDispatchMode

N, D = 37, 13
DIRECTIONS = [
    ("query_to_doc",),
    ("query_to_doc", "query_to_query"),
    ("query_to_doc", "doc_to_query"),
    ("doc_to_query", "query_to_query", "query_to_doc"),
    ("query_to_doc", "doc_to_query", "doc_to_doc"),
    ("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc"),
]


def sides(count, dtype=torch.float64, n=N, seed=0):
    """Vectors of several lengths around shared centres."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(n, D, generator=generator)
    made = [(centres + torch.randn(n, D, generator=generator)) * (1 + i) for i in range(count)]
    return [side.to(dtype).requires_grad_() for side in made]


def results(loss, leaves, cotangent=0.7):
    gradients = torch.autograd.grad(loss, leaves, torch.full_like(loss, cotangent))
    assert all(gradient.abs().max() > 0 for gradient in gradients)
    return [loss.detach().double(), *(gradient.double() for gradient in gradients)]


def assert_equal(ours, truth, tolerance):
    for got, expected in zip(ours, truth, strict=True):
        assert (got - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.fixture(autouse=True)
def _several_chunks(monkeypatch):
    """Ragged ones."""
    monkeypatch.setattr(row_chunks, "CHUNK_ELEMENTS_CPU", 64)
    monkeypatch.setattr(row_chunks, "LEAST_ROWS", 16)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("negatives", [0, 2])
@pytest.mark.parametrize(
    ("directions", "joint"),
    [*((directions, True) for directions in DIRECTIONS), (DIRECTIONS[0], False), (DIRECTIONS[2], False)],
)
@pytest.mark.parametrize("offset", [0, 10])
def test_multiple_negatives(directions, joint, negatives, dtype, offset):
    options = {"temperature": 0.05, "directions": directions, "joint": joint}
    if offset:
        options |= {"offset": offset, "num_queries": 9}
    leaves = sides(2 + negatives)
    truth = results(multiple_negatives(leaves[0], leaves[1:], **options), leaves)
    leaves = [leaf.detach().to(dtype).requires_grad_() for leaf in leaves]
    ours = results(embedding_losses.multiple_negatives(leaves[0], leaves[1:], **options), leaves)
    assert_equal(ours, truth, 1e-12 if dtype == torch.float64 else 3e-5)


def test_sides_of_two_dtypes_meet_in_the_wider():
    queries, documents = sides(1, torch.bfloat16) + sides(1, torch.float32, seed=1)
    loss = embedding_losses.multiple_negatives(queries, [documents], temperature=0.1)
    loss.backward()
    assert (loss.dtype, queries.grad.dtype, documents.grad.dtype) == (torch.float32, torch.bfloat16, torch.float32)


@pytest.mark.parametrize("negatives", [0, 2])
@pytest.mark.parametrize("anchors", [True, False], ids=["anchors", ""])
@pytest.mark.parametrize("positives", [True, False], ids=["positives", ""])
@pytest.mark.parametrize(("margin", "relative"), [(0.0, False), (0.2, False), (0.1, True)])
def test_guided(negatives, anchors, positives, margin, relative):
    options = {"temperature": 0.05, "margin": margin, "relative": relative}
    options |= {"contrast_anchors": anchors, "contrast_positives": positives}
    leaves, guides = sides(2 + negatives), [side.detach() for side in sides(2 + negatives, seed=1)]
    truth = results(guided(leaves[0], leaves[1:], guides[0], guides[1:], **options), leaves)
    ours = results(embedding_losses.guided(leaves[0], leaves[1:], guides[0], guides[1:], **options), leaves)
    assert_equal(ours, truth, 1e-12)
    everything = guided(leaves[0], leaves[1:], guides[0], guides[1:], **options | {"margin": -3.0, "relative": False})
    assert everything > truth[0] + 0.01, "the guide leaves nothing out"


def test_guided_among_other_processes():
    """Nine anchors of one process, whose positives are rows 10 to 18 of all."""
    leaves, guides = [*sides(1, n=9), *sides(2, seed=2)], [side.detach() for side in [*sides(1, n=9, seed=3), *sides(2, seed=4)]]
    options = {"temperature": 0.05, "margin": 0.1, "relative": False, "contrast_anchors": True, "contrast_positives": True}
    truth, ours = (
        results(loss(leaves[0], leaves[1:], guides[0], guides[1:], offset=10, **options), leaves)
        for loss in (guided, embedding_losses.guided)
    )
    assert_equal(ours, truth, 1e-12)


@pytest.mark.parametrize("negatives_only", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("columns", [37, 50])
def test_sigmoid(negatives_only, dtype, columns):
    vectors = [torch.nn.functional.normalize(torch.randn(rows, D, dtype=torch.float64), dim=1) for rows in (N, columns)]
    leaves = [*(v.to(dtype).double() for v in vectors), torch.tensor(10.0).double(), torch.tensor(-7.0).double()]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    truth = results(sigmoid(*leaves, negatives_only=negatives_only), leaves)
    given = [leaf.detach().to(dtype).requires_grad_() for leaf in leaves]
    ours = results(embedding_losses.sigmoid(*given, negatives_only=negatives_only), given)
    assert_equal(ours, truth, {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype])


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return made


def test_no_matrix_of_all_pairs_is_stored(monkeypatch):
    n = 400
    a, b, c, d = sides(4, torch.float32, n)
    calls = {
        "multiple negatives": lambda: embedding_losses.multiple_negatives(
            a, [b, c], temperature=0.1, directions=("query_to_doc", "query_to_query", "doc_to_query", "doc_to_doc")
        ),
        "guided": lambda: embedding_losses.guided(a, [b], c, [d], temperature=0.1, margin=0.1),
        "sigmoid": lambda: embedding_losses.sigmoid(a, b, 10.0, -10.0),
    }
    from alignx_kernels.info_nce import chunked

    monkeypatch.setattr(chunked, "CHUNK_ELEMENTS", 64 * n)
    for name, call in calls.items():
        with Largest() as largest:
            call().backward()
        assert 0 < largest.elements <= 64 * 4 * n, name


def test_nothing_is_spent_on_gradients_that_nobody_wants():
    images, texts = (side.detach() for side in sides(2))
    assert embedding_losses.sigmoid(images, texts, 10.0, -5.0).grad_fn is None
    images.requires_grad_()
    with torch.no_grad():
        assert not embedding_losses.sigmoid(images, texts, 10.0, -5.0).requires_grad
    loss = embedding_losses.sigmoid(images, texts, 10.0, -5.0)
    loss.backward()
    assert texts.grad is None
    assert images.grad.abs().sum() > 0
    loss = embedding_losses.sigmoid(images, texts, 10.0, -5.0)
    (gradient,) = torch.autograd.grad(loss, images, create_graph=True)
    with pytest.raises(RuntimeError, match="second derivative"):
        gradient.sum().backward()


def test_products_follow_autocast_and_the_rest_stays_exact():
    images, texts = (torch.nn.functional.normalize(side.detach().float(), dim=1).requires_grad_() for side in sides(2))
    with torch.autocast("cpu", torch.bfloat16):
        rounded = results(embedding_losses.sigmoid(images, texts, 10.0, -7.0), [images, texts])
        guided_loss = embedding_losses.guided(images, [texts], images.detach(), [texts.detach()], temperature=0.05)
    exact = results(embedding_losses.sigmoid(images, texts, 10.0, -7.0), [images, texts])
    assert rounded[0] != exact[0]
    assert_equal(rounded, exact, 2e-2)
    assert guided_loss == embedding_losses.guided(images, [texts], images.detach(), [texts.detach()], temperature=0.05)
