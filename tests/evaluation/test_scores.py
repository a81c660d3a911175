"""Scores with known answers, on tensors alone."""

import numpy as np
import pytest
import torch

from alignx_fast.evaluation.layers import linear_cka, similarity
from alignx_fast.evaluation.projection import principal_plane
from alignx_fast.evaluation.results import PairRetrieval, Retrieval
from alignx_fast.evaluation.retrieval import retrieval, top1


def vectors(languages: int, meanings: int, width: int = 16) -> torch.Tensor:
    return torch.randn(languages, meanings, width, generator=torch.Generator().manual_seed(0))


def test_retrieval_is_perfect_for_scaled_copies():
    base = vectors(1, 7)
    both = torch.cat([base, 3 * base])
    scores = retrieval(both, torch.ones(2, 7, dtype=torch.bool), ["de", "en"])
    assert scores.chance == pytest.approx(1 / 7)
    assert scores.average == 1.0
    assert scores.pairs == {"de-en": PairRetrieval(top1=1.0, n=7), "en-de": PairRetrieval(top1=1.0, n=7)}


def test_ties_are_misses():
    has = torch.ones(2, 7, dtype=torch.bool)
    assert retrieval(torch.ones(2, 7, 16), has, ["de", "en"]).average == 0
    assert retrieval(torch.zeros(2, 7, 16), has, ["de", "en"]).average == 0
    assert top1(torch.tensor([[0.9, 0.9 + 1e-8, 0.0], [0.0, 0.5, 0.4], [0.0, 0.7, 0.6]])) == pytest.approx(1 / 3)
    assert top1(torch.full((3, 3), torch.nan)) == 0


def test_retrieval_differs_by_direction():
    # Both meanings of language b are nearest to meaning 0 of language a, while a's meanings find their own.
    a, b = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.1], [0.9, 0.5]])
    pairs = retrieval(torch.stack([a, b]), torch.ones(2, 2, dtype=torch.bool), ["a", "b"]).pairs
    assert pairs["a-b"].top1 == 1.0
    assert pairs["b-a"].top1 == 0.5


def test_missing_translations_are_left_out():
    has = torch.tensor([[True] * 5, [True, True, True, False, False], [True, False, False, False, False]])
    scores = retrieval(vectors(3, 5), has, ["a", "b", "c"])
    assert {pair: value.n for pair, value in scores.pairs.items()} == {"a-b": 3, "b-a": 3}
    assert retrieval(vectors(1, 5), has[:1], ["a"]) == Retrieval(chance=None, average=None, pairs={})


def test_similarity_matches_loops():
    points, has = vectors(3, 6), torch.ones(3, 6, dtype=torch.bool)
    has[2, 4] = False
    related, unrelated = [], []
    for a, b in ((0, 1), (0, 2), (1, 2)):
        shared = [m for m in range(6) if has[a, m] and has[b, m]]
        cosine = {(i, j): torch.cosine_similarity(points[a, i], points[b, j], dim=0).item() for i in shared for j in shared}
        related.append(np.mean([value for (i, j), value in cosine.items() if i == j]))
        unrelated.append(np.mean([value for (i, j), value in cosine.items() if i != j]))
    scores = similarity(points, has)
    assert scores.translations == pytest.approx(np.mean(related), abs=1e-6)
    assert scores.unrelated == pytest.approx(np.mean(unrelated), abs=1e-6)


def test_cka_ignores_rotation_and_scale():
    points = vectors(1, 20)[0]
    rotation = torch.linalg.qr(torch.randn(16, 16, generator=torch.Generator().manual_seed(1)))[0]
    assert linear_cka(points, 5 * points @ rotation + 2) == pytest.approx(1)
    assert linear_cka(points, vectors(2, 20)[1]) < 0.9
    assert linear_cka(points, torch.ones_like(points)) == 0


def test_principal_plane_finds_the_plane():
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(30, 2)) * [5, 1] @ np.linalg.qr(rng.normal(size=(8, 2)))[0].T + 3
    plane, explained = principal_plane(flat)
    assert sum(explained) == pytest.approx(1)
    distances = lambda x: np.linalg.norm(x[:, None] - x[None], axis=-1)  # noqa: E731
    np.testing.assert_allclose(distances(plane), distances(flat), atol=1e-9)
    np.testing.assert_allclose(principal_plane(flat[::-1])[0][::-1], plane, atol=1e-9)
    assert principal_plane(np.ones((1, 8)))[1] == [0.0]
