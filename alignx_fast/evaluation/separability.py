"""How well a linear classifier tells the languages apart by their sentence vectors, at one layer.

Ridge regression on one-hot targets in closed form, cross-validated. The folds are folds of meanings: translations never stand on both sides, so that
what a sentence says gives nothing away.

Shape legend: L languages, N meanings, S sentence vectors, D hidden width.
"""

import torch
import torch.nn.functional as F

from alignx_fast.evaluation.intervals import bootstrap_ratio
from alignx_fast.evaluation.results import LanguageProbe
from alignx_fast.evaluation.sample import evenly

FOLDS = 5
RIDGE = 0.1
"""Weight of the penalty beside the mean square of a standardised feature, which is 1."""
PROBE_VECTORS = 5000
"""About as many vectors are probed at most, in meanings from all over."""


def language_probe(
    vectors_LND: torch.Tensor, has_LN: torch.Tensor, layer: int, device: torch.device | str = "cpu"
) -> LanguageProbe | None:
    """Accuracy over all folds; None of fewer than two languages or than `FOLDS` meanings."""
    meanings = evenly(has_LN.any(0).nonzero()[:, 0].tolist(), max(FOLDS, PROBE_VECTORS // max(1, len(has_LN))))
    language_S, place_S = has_LN[:, meanings].nonzero(as_tuple=True)
    counts_L = torch.bincount(language_S, minlength=len(has_LN))
    if len(meanings) < FOLDS or (counts_L > 0).sum() < 2:
        return None
    vectors_SD = vectors_LND[language_S, torch.tensor(meanings)[place_S]].to(device)
    right_S = cross_validated(vectors_SD, language_S.to(device), (place_S % FOLDS).to(device)).cpu()
    right_N = torch.bincount(place_S, right_S.double(), minlength=len(meanings))
    return LanguageProbe(
        layer=layer,
        accuracy=right_S.double().mean().item(),
        interval=bootstrap_ratio(right_N.tolist(), torch.bincount(place_S, minlength=len(meanings)).tolist()),
        chance=counts_L.max().item() / len(language_S),
        n=len(language_S),
    )


def cross_validated(vectors_SD: torch.Tensor, language_S: torch.Tensor, fold_S: torch.Tensor) -> torch.Tensor:
    """[S] bool: whether the classifier that was trained on the other folds names the language of each vector."""
    right_S = torch.zeros_like(language_S, dtype=torch.bool)
    for fold in range(FOLDS):
        held_S = fold_S == fold
        if held_S.any() and not held_S.all():
            named = ridge_classifier(vectors_SD[~held_S], language_S[~held_S], vectors_SD[held_S])
            right_S[held_S] = named == language_S[held_S]
    return right_S


def ridge_classifier(train_SD: torch.Tensor, language_S: torch.Tensor, test_SD: torch.Tensor) -> torch.Tensor:
    """The language of every test vector by ridge regression on standardised features; constant features say nothing."""
    mean_D, std_D = train_SD.double().mean(0), train_SD.double().std(0, correction=0)
    scale_D = torch.where(std_D > 1e-6 * mean_D.abs() + 1e-30, std_D, torch.inf)
    train_SD, test_SD = ((x.double() - mean_D) / scale_D for x in (train_SD, test_SD))
    one_hot_SL = F.one_hot(language_S).double()
    targets_SL = one_hot_SL - one_hot_SL.mean(0)
    rows, width = train_SD.shape
    if rows < width:  # the same weights, from the smaller system of equations
        gram_SS = train_SD @ train_SD.T
        gram_SS.diagonal().add_(RIDGE * rows)
        weights_DL = train_SD.T @ torch.linalg.solve(gram_SS, targets_SL)
    else:
        covariance_DD = train_SD.T @ train_SD
        covariance_DD.diagonal().add_(RIDGE * rows)
        weights_DL = torch.linalg.solve(covariance_DD, train_SD.T @ targets_SL)
    named: torch.Tensor = (test_SD @ weights_DL + one_hot_SL.mean(0)).argmax(1)
    return named
