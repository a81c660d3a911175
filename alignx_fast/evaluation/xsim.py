"""xsim: search by margin, a cosine seen against those of the nearest neighbours on both sides.

    margin(x, y) = cos(x, y) / (mean cosine of x with its k nearest y + mean cosine of y with its k nearest x) * 2

A sentence that is near to everything (a hub) then wins no search by that alone. As in LASER, the candidates of x are its k nearest y by cosine, and
the error rate is the share of x for which another than their translation has the largest margin.

Sources: Artetxe and Schwenk 2019 (arXiv 1811.01136), eq. 2; LASER's xsim; xsim++: Chen et al. 2023 (arXiv 2306.12907).

Shape legend: N sentences searched for, M candidates, K neighbours.
"""

import torch

from alignx_fast.evaluation.neighbours import Neighbours

K = 4
"""Neighbours on each side."""
TIE = 1e-6  # cosines and margins closer than this are rounding: a tie, and a tie is a miss
NONE = -1
"""The pick of a search whose two best candidates tie."""


def nearest_is_own(neighbours: Neighbours) -> torch.Tensor:
    """[N] bool: sentence i's nearest candidate is number i, nearer than all others. Needs K >= 2."""
    own_N = torch.arange(len(neighbours.ids_NK), device=neighbours.ids_NK.device)
    first_N, second_N = neighbours.cosines_NK[:, 0], neighbours.cosines_NK[:, 1]
    return (neighbours.ids_NK[:, 0] == own_N) & (first_N - second_N > TIE)


def picks(there: Neighbours, back: Neighbours) -> torch.Tensor:
    """[N] int64: the candidate with the largest margin for each sentence, `NONE` for a tie and where there is no number.

    `there` holds the nearest candidates of each sentence, `back` the nearest sentences of each candidate; both K >= 2.
    """
    scale_NK = (there.cosines_NK.mean(1, keepdim=True) + back.cosines_NK.mean(1)[there.ids_NK]) / 2
    best = (there.cosines_NK / scale_NK).topk(2, dim=1)
    clear_N = best.values[:, 0] - best.values[:, 1] > TIE
    return there.ids_NK.gather(1, best.indices[:, :1])[:, 0].where(clear_N, NONE)
