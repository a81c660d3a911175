"""Scores with known answers, on tensors and texts alone."""

import numpy as np
import pytest
import torch

from alignx_fast.config import EvaluationSettings
from alignx_fast.evaluation import scoring
from alignx_fast.evaluation.generation import batches_by_length
from alignx_fast.evaluation.layers import linear_cka, similarity
from alignx_fast.evaluation.projection import principal_plane
from alignx_fast.evaluation.translation import directions, score_direction


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


def test_perfect_translations_score_100_and_chance_is_low():
    texts = ["The quick brown fox jumps over it.", "A slow green turtle sleeps under them.", "Nothing else happened on that day."]
    scores = score_direction(texts, texts, texts, tokenizer="13a")
    assert scores.bleu == pytest.approx(100)
    assert scores.chrf == pytest.approx(100)
    assert scores.chance.bleu < 5
    assert "tok:13a" in scores.signature
    assert "nw:2" in scores.signature
    assert scoring.CorpusScorer("13a")(["", "", ""], texts).chrf == 0


def test_bleu_tokenizers(tmp_path, monkeypatch):
    monkeypatch.setattr(scoring, "FLORES200", tmp_path / "flores200sacrebleuspm")
    assert scoring.bleu_tokenizer("de") == ("13a", None)
    assert scoring.bleu_tokenizer("zh-Hant") == ("zh", None)
    name, note = scoring.bleu_tokenizer("ja")
    assert name == "char"
    assert "chrF++" in note
    scoring.FLORES200.write_bytes(b"model")
    name, note = scoring.bleu_tokenizer("th")
    assert name == "flores200"
    assert "sha256" in note


def test_off_target():
    pytest.importorskip("py3langid")
    german = "Das Wetter ist heute sehr schön, und wir gehen spazieren."
    english = "The weather is very nice today, and we are going for a walk."
    assert scoring.off_target([german, english, "", german], "de", ["de", "en"]) == 0.5
    assert scoring.off_target([english], "en", ["en", "fr"]) == 0  # another set of languages than before
    assert scoring.off_target([german], "tlh", ["de", "en", "tlh"]) is None
    assert scoring.off_target([], "de", ["de", "en"]) is None


def test_directions():
    pairs, notes = directions(EvaluationSettings(), ["de", "en", "zh-Hant"])
    assert pairs == [("en", "de"), ("de", "en"), ("en", "zh-Hant"), ("zh-Hant", "en")]
    assert notes == []
    pairs, notes = directions(EvaluationSettings(), ["de", "fr"])
    assert pairs == []
    assert "pivot language en" in notes[0]
    pairs, notes = directions(EvaluationSettings(translation_directions=["de-zh-Hant", "de-xx"]), ["de", "zh-Hant"])
    assert pairs == [("de", "zh-Hant")]
    assert "de-xx" in notes[0]


def test_generation_batches_hold_every_row_within_the_budget():
    prompts = [[7] * n for n in (5, 30, 12, 12, 3, 80)]
    groups = batches_by_length(prompts, max_new_tokens=10, tokens_per_batch=60)
    assert sorted(row for group in groups for row in group) == list(range(6))
    assert groups[0] == [5]  # longer than the budget: alone
    assert all(len(group) == 1 or (max(len(prompts[row]) for row in group) + 10) * len(group) <= 60 for group in groups)
    assert len(groups) < 6
