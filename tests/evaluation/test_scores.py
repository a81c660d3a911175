"""Scores with known answers, on tensors alone."""

import numpy as np
import pytest
import torch

from alignx_fast.evaluation.layers import linear_cka, similarity
from alignx_fast.evaluation.projection import principal_plane


def vectors(languages: int, meanings: int, width: int = 16) -> torch.Tensor:
    return torch.randn(languages, meanings, width, generator=torch.Generator().manual_seed(0))


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
