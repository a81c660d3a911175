"""Anisotropy and the language probe: against loops, and on data whose answer is known."""

import numpy as np
import pytest
import torch

from alignx_fast.evaluation import anisotropy as anisotropy_module
from alignx_fast.evaluation import separability
from alignx_fast.evaluation.anisotropy import anisotropy, first_component, mean_cosine
from alignx_fast.evaluation.separability import language_probe, ridge_classifier


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_mean_cosine_by_loops() -> None:
    """Over all pairs of different sentences."""
    vectors = noise(7, 5) + 1
    cosines = [torch.cosine_similarity(vectors[i], vectors[j], dim=0).item() for i in range(7) for j in range(7) if i != j]
    assert mean_cosine(vectors) == pytest.approx(np.mean(cosines), abs=1e-6)
    assert mean_cosine(torch.ones(3, 4)) == pytest.approx(1)
    assert mean_cosine(torch.zeros(3, 4)) == 0


def test_first_component_by_singular_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the centred vectors, or of some of them from all over."""
    vectors = noise(40, 6) * torch.tensor([5.0, 2.0, 1.0, 1.0, 1.0, 1.0]) + 3
    variances = np.linalg.svd((vectors - vectors.mean(0)).numpy(), compute_uv=False) ** 2
    assert first_component(vectors) == pytest.approx(variances[0] / variances.sum(), rel=1e-5)
    assert first_component(torch.ones(4, 3)) == 0
    line = torch.arange(4.0)[:, None] * torch.ones(3)
    assert first_component(line) == pytest.approx(1)
    monkeypatch.setattr(anisotropy_module, "COMPONENT_SENTENCES", 20)
    assert first_component(vectors) == pytest.approx(first_component(vectors[::2]))


def test_anisotropy_is_a_mean_over_languages() -> None:
    """Missing sentences and languages with a single one are left out."""
    vectors, has = noise(3, 6, 5), torch.ones(3, 6, dtype=torch.bool)
    has[1, 4:], has[2, 1:] = False, False
    scores = anisotropy(vectors, has)
    own = (vectors[0], vectors[1, :4])
    assert scores.same_language == pytest.approx(np.mean([mean_cosine(x) for x in own]))
    assert scores.first_component == pytest.approx(np.mean([first_component(x) for x in own]))
    assert anisotropy(vectors[:, :1], has[:, :1]) == (None, None)


@pytest.mark.parametrize("width", [8, 200])
def test_separable_languages_are_told_apart(width: int) -> None:
    """Languages with means of their own and languages without; fewer and more features than sentences."""
    vectors, has = noise(3, 50, width), torch.ones(3, 50, dtype=torch.bool)
    assert language_probe(vectors, has, layer=4).accuracy == pytest.approx(1 / 3, abs=0.15)
    vectors += 5 * noise(3, 1, width, seed=1)
    probe = language_probe(vectors, has, layer=4)
    assert (probe.layer, probe.accuracy, probe.n) == (4, 1, 150)
    assert probe.chance == pytest.approx(1 / 3)
    assert probe.interval.low == probe.interval.high == 1


def test_equal_vectors_cannot_be_told_apart() -> None:
    """Translations with the same vector: knowing the meaning does not help, since its translations are held out with it."""
    vectors, has = noise(1, 60, 10).repeat(2, 1, 1), torch.ones(2, 60, dtype=torch.bool)
    probe = language_probe(vectors, has, layer=0)
    assert probe.accuracy == pytest.approx(0.5)
    assert probe.interval.low <= 0.5 <= probe.interval.high
    constant = language_probe(torch.ones(2, 60, 10), has, layer=0)
    assert constant.accuracy == 0.5


def test_folds_keep_translations_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every meaning lies in one fold, also where sentences are missing and where only some meanings are probed."""
    vectors, has = torch.zeros(3, 23, 2), torch.rand(3, 23, generator=torch.Generator().manual_seed(0)) < 0.7
    vectors[..., 0] = torch.arange(23)
    vectors[..., 1] = torch.arange(3)[:, None]
    seen = []

    def look(vectors_SD: torch.Tensor, language_S: torch.Tensor, fold_S: torch.Tensor) -> torch.Tensor:
        assert torch.equal(vectors_SD[:, 1].long(), language_S)
        seen.append(dict(zip(vectors_SD[:, 0].tolist(), fold_S.tolist(), strict=True)))
        assert all(seen[-1][meaning] == fold for meaning, fold in zip(vectors_SD[:, 0].tolist(), fold_S.tolist(), strict=True))
        return torch.ones_like(language_S, dtype=torch.bool)

    monkeypatch.setattr(separability, "cross_validated", look)
    assert language_probe(vectors, has, layer=0).n == has.sum()
    assert set(seen[0].values()) == set(range(5))
    monkeypatch.setattr(separability, "PROBE_VECTORS", 30)
    assert language_probe(vectors, has, layer=0).n <= 30
    assert len(seen[1]) == 10


def test_both_systems_of_equations_name_the_same() -> None:
    """Features that are always equal change nothing, except that there are then more features than sentences."""
    train, test, language = noise(30, 6), noise(40, 6, seed=1), torch.arange(30) % 3
    padded = [torch.cat([x, torch.ones(len(x), 50)], 1) for x in (train, test)]
    named = ridge_classifier(train, language, test)
    assert torch.equal(named, ridge_classifier(padded[0], language, padded[1]))
    assert len(named.unique()) == 3


def test_too_little_to_probe() -> None:
    """One language, or fewer meanings than folds."""
    assert language_probe(noise(1, 9, 3), torch.ones(1, 9, dtype=torch.bool), layer=0) is None
    assert language_probe(noise(2, 4, 3), torch.ones(2, 4, dtype=torch.bool), layer=0) is None
    has = torch.ones(2, 9, dtype=torch.bool)
    has[1] = False
    assert language_probe(noise(2, 9, 3), has, layer=0) is None
