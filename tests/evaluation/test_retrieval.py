"""Searches against their definitions, written out in loops on small random vectors."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from alignx_fast.evaluation import neighbours
from alignx_fast.evaluation.hard_negatives import Kind
from alignx_fast.evaluation.intervals import bootstrap_mean
from alignx_fast.evaluation.mexa import aligned, mexa
from alignx_fast.evaluation.neighbours import nearest
from alignx_fast.evaluation.results import PairRetrieval, Retrieval
from alignx_fast.evaluation.retrieval import HardVectors, average, retrieval, search, top1, xsim, xsimpp
from alignx_fast.evaluation.vectors import centred

CODES = ["de", "en", "sw"]


def random_vectors(languages: int, meanings: int, width: int = 6, seed: int = 0) -> torch.Tensor:
    """Translations that are a little alike, so that some are found and some are not."""
    random = torch.Generator().manual_seed(seed)
    shared = torch.randn(meanings, width, generator=random)
    return shared + 0.8 * torch.randn(languages, meanings, width, generator=random) + 1


def everywhere(vectors_LND: torch.Tensor) -> torch.Tensor:
    return torch.ones(vectors_LND.shape[:2], dtype=torch.bool)


def cosine(x: torch.Tensor, y: torch.Tensor) -> float:
    return float(x.double() @ y.double() / x.double().norm() / y.double().norm())


def xsim_by_definition(x_ND: torch.Tensor, y_MD: torch.Tensor, k: int = 4) -> list[int]:
    """LASER: of the k nearest y of each x by cosine, the one with the largest ratio of cosine and mean neighbour cosines."""
    cos = np.array([[cosine(x, y) for y in y_MD] for x in x_ND])
    mean_x = [np.mean(sorted(row)[-k:]) for row in cos]
    mean_y = [np.mean(sorted(column)[-k:]) for column in cos.T]
    best = []
    for i, row in enumerate(cos):
        candidates = sorted(range(len(row)), key=lambda j, row=row: row[j])[-k:]
        best.append(max(candidates, key=lambda j, row=row, i=i: row[j] / ((mean_x[i] + mean_y[j]) / 2)))
    return best


@pytest.mark.parametrize("block", [1, 40, 1 << 24])
def test_neighbours_in_blocks(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one row, of a few that do not divide the rows, and all at once."""
    monkeypatch.setattr(neighbours, "BLOCK", block)
    a_ND, b_MD = (F.normalize(x, dim=-1) for x in (random_vectors(1, 11)[0], random_vectors(1, 9, seed=1)[0]))
    there, back = nearest(a_ND, b_MD, 4)
    for found, cosines in ((there, a_ND @ b_MD.T), (back, b_MD @ a_ND.T)):
        expected = cosines.topk(4, dim=1)
        torch.testing.assert_close(found.cosines_NK, expected.values)
        assert torch.equal(found.ids_NK, expected.indices)


@pytest.mark.parametrize("meanings", [2, 3, 30])
def test_xsim_by_definition(meanings: int) -> None:
    """Both directions; fewer sentences than neighbours too."""
    vectors = random_vectors(2, meanings)
    to_en, to_de = search(vectors, everywhere(vectors))
    assert to_en.picks.tolist() == xsim_by_definition(vectors[0], vectors[1])
    assert to_de.picks.tolist() == xsim_by_definition(vectors[1], vectors[0])
    if meanings == 30:
        wrong = np.mean([pick != i for i, pick in enumerate(xsim_by_definition(vectors[0], vectors[1]))])
        assert retrieval([to_en], CODES).pairs["de-en"].xsim == pytest.approx(wrong)
        assert 0 < wrong < 1
        assert to_en.found.double().mean() != 1 - wrong  # the margin changes what is found


def test_hard_negatives_are_further_candidates() -> None:
    """Only for their own language as the target, and only those of sentences that both languages have."""
    vectors, has = random_vectors(2, 20), torch.ones(2, 20, dtype=torch.bool)
    has[0, 7] = False
    made_from = torch.tensor([0, 3, 3, 7, 19, *range(8, 16)])
    kinds = [Kind.NUMBER, Kind.ENTITY, Kind.NUMBER, Kind.CAUSALITY, Kind.CAUSALITY, *[Kind.ENTITY] * 8]
    hard_HD = vectors[1, made_from] + 0.3 * torch.randn(13, 6, generator=torch.Generator().manual_seed(2))
    to_en, to_de = search(vectors, has, HardVectors(1, made_from, kinds, hard_HD))
    common = [i for i in range(20) if i != 7]
    kept = [h for h, meaning in enumerate(made_from.tolist()) if meaning != 7]
    expected = xsim_by_definition(vectors[0, common], torch.cat([vectors[1, common], hard_HD[kept]]))
    assert to_en.hard_picks.tolist() == expected
    assert to_de.hard_picks is None
    score = retrieval([to_en, to_de], CODES).pairs["de-en"]
    taken = [kinds[kept[pick - 19]] for pick in expected if pick >= 19]
    assert score.xsimpp == pytest.approx(np.mean([pick != i for i, pick in enumerate(expected)]))
    assert score.xsimpp > score.xsim
    assert score.xsimpp_by_kind == {kind: pytest.approx(taken.count(kind) / 19) for kind in Kind}
    assert 0 < sum(score.xsimpp_by_kind.values()) <= score.xsimpp
    assert retrieval([to_en, to_de], CODES).xsimpp == score.xsimpp
    assert average([to_de], xsimpp) == (None, None)


def test_mexa_by_definition() -> None:
    """Translations that are nearest in row and column; mean and maximum over the layers, by language."""
    layers = [random_vectors(3, 20, seed=seed) for seed in range(4)]
    hits = np.zeros((2, 4, 20))
    for y, vectors in enumerate(layers):
        for number, language in enumerate((0, 2)):
            cos = np.array([[cosine(x, p) for p in vectors[1]] for x in vectors[language]])
            for i in range(20):
                others = [*np.delete(cos[i], i), *np.delete(cos[:, i], i)]
                hits[number, y, i] = cos[i, i] > max(others)
    scores = mexa([aligned(search(vectors, everywhere(vectors)), pivot=1) for vectors in layers], CODES)
    assert set(scores) == {"de", "sw"}
    for hits_YN, score in zip(hits, scores.values(), strict=True):
        assert score.mean == pytest.approx(hits_YN.mean())
        assert score.max == pytest.approx(hits_YN.mean(1).max())
        assert score.best_layer == hits_YN.mean(1).argmax()
        assert score.n == 20
        assert score.mean_interval == bootstrap_mean([hits_YN.mean(0).tolist()])
        assert score.max_interval == bootstrap_mean([hits_YN[score.best_layer].tolist()])
    assert 0 < scores["de"].mean < scores["de"].max < 1
    assert mexa([aligned([], pivot=1)] * 3, CODES) == {}


def test_retrieval_is_perfect_for_scaled_copies() -> None:
    """Cosine ignores length."""
    base = random_vectors(1, 7)
    both = torch.cat([base, 3 * base])
    scores = retrieval(search(both, everywhere(both)), ["de", "en"])
    assert scores.chance == pytest.approx(1 / 7)
    assert (scores.average, scores.xsim) == (1, 0)
    assert scores.average_interval.low == scores.average_interval.high == 1
    expected = PairRetrieval(top1=1, n=7, xsim=0, top1_interval=scores.average_interval, xsim_interval={"low": 0.0, "high": 0.0})
    assert scores.pairs == {"de-en": expected, "en-de": expected}


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_ties_are_misses(value: float) -> None:
    """Constant vectors find nothing, by cosine or by margin."""
    vectors = torch.full((2, 7, 16), value)
    scores = retrieval(search(vectors, everywhere(vectors)), CODES)
    assert (scores.average, scores.xsim) == (0, 1)


def test_a_difference_of_rounding_is_a_tie() -> None:
    """The second sentence of b is a copy of the first but for the last bits."""
    a = F.normalize(random_vectors(1, 3)[0], dim=-1)
    b = torch.stack([a[0], a[0] + 1e-8, a[2]])
    to_b, _ = search(torch.stack([a, b]), torch.ones(2, 3, dtype=torch.bool))
    assert top1(to_b) == [0, 0, 1]
    assert xsim(to_b)[:2] == [1, 1]


def test_retrieval_differs_by_direction() -> None:
    """Both meanings of language b are nearest to meaning 0 of language a, while a's meanings find their own."""
    a, b = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[1.0, 0.1], [0.9, 0.5]])
    pairs = retrieval(search(torch.stack([a, b]), torch.ones(2, 2, dtype=torch.bool)), ["a", "b"]).pairs
    assert pairs["a-b"].top1 == 1.0
    assert pairs["b-a"].top1 == 0.5


def test_missing_translations_are_left_out() -> None:
    """A pair of languages needs two shared meanings."""
    has = torch.tensor([[True] * 5, [True, True, True, False, False], [True, False, False, False, False]])
    scores = retrieval(search(random_vectors(3, 5), has), ["a", "b", "c"])
    assert {pair: value.n for pair, value in scores.pairs.items()} == {"a-b": 3, "b-a": 3}
    assert retrieval(search(random_vectors(1, 5), has[:1]), ["a"]) == Retrieval(chance=None, average=None, pairs={})


def test_averages_draw_the_same_sentences_in_all_pairs() -> None:
    """The interval is that of the sentences' means over the directions."""
    vectors = random_vectors(3, 40)
    searches = search(vectors, everywhere(vectors))
    value, interval = average(searches, top1)
    by_sentence = np.mean([top1(found) for found in searches], axis=0)
    expected = bootstrap_mean([by_sentence.tolist()])
    assert value == pytest.approx(by_sentence.mean())
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))


def test_a_language_that_is_only_moved_is_found_once_it_is_centred() -> None:
    """Vectors of two languages that differ by one large constant, with a hole: plain search fails, centred search finds every translation."""
    generator = torch.Generator().manual_seed(0)
    meaning_ND = torch.randn(40, 16, generator=generator)
    vectors_LND = torch.stack([meaning_ND, meaning_ND + 50 * torch.randn(16, generator=generator)])
    has_LN = torch.ones(2, 40, dtype=torch.bool)
    has_LN[1, 3] = False
    vectors_LND[1, 3] = 0
    moved = centred(vectors_LND, has_LN)
    assert not moved[1, 3].any()
    torch.testing.assert_close(moved.sum(1), torch.zeros(2, 16), atol=1e-3, rtol=0)
    assert average(search(vectors_LND, has_LN), top1).value < 0.5
    assert average(search(moved, has_LN), top1).value == 1
