"""Sentence vectors on a plane, for the report's map."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from alignx_fast.data.rows import Meaning
from alignx_fast.evaluation.results import MapPoint, SentenceMap
from alignx_fast.evaluation.sample import evenly

MAP_MEANINGS = 40


def sentence_map(
    vectors_LND: torch.Tensor, has_LN: torch.Tensor, languages: Sequence[str], meanings: Sequence[Meaning], layer: int
) -> SentenceMap:
    """First two principal components of the unit vectors of at most `MAP_MEANINGS` meanings in every language."""
    shown = [(a, m) for m in evenly(range(len(meanings)), MAP_MEANINGS) for a in range(len(languages)) if has_LN[a, m]]
    if not shown:
        return SentenceMap(layer=layer)
    unit_SD = F.normalize(torch.stack([vectors_LND[a, m] for a, m in shown]).double(), dim=-1)
    points_S2, explained = principal_plane(unit_SD.numpy())
    points = [
        MapPoint(x=float(x), y=float(y), lang=languages[a], id=meanings[m].id)
        for (a, m), (x, y) in zip(shown, points_S2, strict=True)
    ]
    return SentenceMap(layer=layer, explained=tuple(explained), points=tuple(points))


def principal_plane(points_SD: NDArray[np.float64]) -> tuple[NDArray[np.float64], list[float]]:
    """Coordinates [S, 2] on the first two principal axes, and their shares of the variance.

    The sign of an axis is free: it is set so that the axis' largest loading is positive.
    """
    centred_SD = points_SD - points_SD.mean(0)
    _, singular, axes = np.linalg.svd(centred_SD, full_matrices=False)
    axes = axes[:2] * np.sign(axes[:2][np.arange(len(axes[:2])), np.abs(axes[:2]).argmax(1)])[:, None]
    plane_S2 = np.zeros((len(points_SD), 2))
    plane_S2[:, : len(axes)] = centred_SD @ axes.T
    total = (singular**2).sum()
    return plane_S2, [float(s**2 / total) if total > 0 else 0.0 for s in singular[:2]]
