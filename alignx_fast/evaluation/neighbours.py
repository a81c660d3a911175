"""Nearest neighbours by cosine between two sets of vectors, in both directions and in bounded memory.

Shape legend: N and M vectors of the two sets, R rows of a block, K neighbours, D hidden width.
"""

from typing import NamedTuple

import torch

BLOCK = 1 << 24
"""Cosines held at once: 64 MiB."""


class Neighbours(NamedTuple):
    """The nearest vectors of another set, the nearest first."""

    cosines_NK: torch.Tensor
    ids_NK: torch.Tensor


def nearest(a_ND: torch.Tensor, b_MD: torch.Tensor, k: int) -> tuple[Neighbours, Neighbours]:
    """For every vector of `a` its (at most) k nearest of `b`, and for every vector of `b` its nearest of `a`; all vectors have length 1."""
    rows = max(1, BLOCK // len(b_MD))
    forward: list[Neighbours] = []
    cosines_KM = a_ND.new_empty(0, len(b_MD))
    ids_KM = torch.empty(0, len(b_MD), dtype=torch.int64, device=a_ND.device)
    for start in range(0, len(a_ND), rows):
        cosines_RM = a_ND[start : start + rows] @ b_MD.T
        forward.append(Neighbours(*cosines_RM.topk(min(k, len(b_MD)), dim=1)))
        ahead = cosines_RM.topk(min(k, len(cosines_RM)), dim=0)
        candidates, ids = torch.cat([cosines_KM, ahead.values]), torch.cat([ids_KM, ahead.indices + start])
        cosines_KM, order = candidates.topk(min(k, len(candidates)), dim=0)
        ids_KM = ids.gather(0, order)
    joined = Neighbours(torch.cat([part.cosines_NK for part in forward]), torch.cat([part.ids_NK for part in forward]))
    return joined, Neighbours(cosines_KM.T, ids_KM.T)
