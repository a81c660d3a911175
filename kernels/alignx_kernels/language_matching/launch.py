"""Launches of the language-matching kernels.

Shape legend: M sentences, I classifier width, S strips, 4I = [ga | gb | ua | ub] (see `api`).
"""

import math
from dataclasses import dataclass

import torch

from ..common.dispatch import on_device
from ..common.tiles import Tile, architecture, cdiv
from . import kernels
from .tiles import pairs_tile


@dataclass(frozen=True)
class LaunchPlan:
    """Sizes and settings of one launch: `blocks` blocks of sentences times `strips` strips of `strip` other sentences."""

    blocks: int
    strips: int
    strip: int
    tile: Tile


def make_plan(num_sentences: int, width: int, device: torch.device) -> LaunchPlan:
    """As many strips as it takes to keep all multiprocessors busy, and no more."""
    tile = pairs_tile(width, architecture(device))
    blocks = cdiv(num_sentences, tile.blocks["BLOCK_A"])
    processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 2
    strips = max(1, min(4 * processors // blocks, cdiv(num_sentences, 16)))
    strip = cdiv(num_sentences, strips)
    return LaunchPlan(blocks, cdiv(num_sentences, strip), strip, tile)


def forward(projected_M4I: torch.Tensor, weight_I: torch.Tensor, languages_M: torch.Tensor) -> torch.Tensor:
    """Sum over b of loss_ab for every a: fp32 [M, 4I], [I] and integer [M], all contiguous -> [M]."""
    num_sentences, width = len(projected_M4I), len(weight_I)
    plan = make_plan(num_sentences, width, projected_M4I.device)
    partial_SM = projected_M4I.new_empty(plan.strips, num_sentences)
    with on_device(projected_M4I):
        kernels.language_pairs_forward_kernel[(plan.blocks, plan.strips)](
            p_scaled=_scaled(projected_M4I, weight_I),
            p_language=languages_M,
            p_partial=partial_SM,
            num_sentences=num_sentences,
            width=width,
            strip=plan.strip,
            **plan.tile.options,
        )
    return partial_SM.sum(0)


def backward(
    grad_M: torch.Tensor, projected_M4I: torch.Tensor, weight_I: torch.Tensor, languages_M: torch.Tensor
) -> torch.Tensor:
    """[d gate | A] of `api.backward_operator` for both halves: [M, 4I], ordered as the projections."""
    num_sentences, width = len(projected_M4I), len(weight_I)
    plan = make_plan(num_sentences, width, projected_M4I.device)
    partial_SM4I = projected_M4I.new_empty(plan.strips, *projected_M4I.shape)
    with on_device(projected_M4I):
        kernels.language_pairs_backward_kernel[(plan.blocks, plan.strips, 2)](
            p_grad=grad_M,
            p_scaled=_scaled(projected_M4I, weight_I),
            p_language=languages_M,
            p_partial=partial_SM4I,
            num_sentences=num_sentences,
            width=width,
            strip=plan.strip,
            **plan.tile.options,
        )
    return partial_SM4I.sum(0)


def _scaled(projected_M4I: torch.Tensor, weight_I: torch.Tensor) -> torch.Tensor:
    """-log2(e) times the gate and w times the up projections, which spares the kernels two products per pair and column."""
    return projected_M4I * torch.cat([torch.full_like(weight_I, -math.log2(math.e)).repeat(2), weight_I.repeat(2)])
