"""A loss of your own, without a change to alignx_fast: alignment and uniformity of sentence vectors (arXiv 2005.10242).

    python examples/custom_loss.py [FOLDER]

trains a tiny model with it in place of the contrastive loss, in less than a minute on two CPU cores. The terms stand in FOLDER/log.jsonl and
in FOLDER/report.html (default: runs/custom_loss).
"""

import json
import sys
from pathlib import Path

import torch
from alignx_kernels import span_mean
from pydantic import Field
from torch.nn import functional as F

from alignx_fast.config import AlignSettings, Settings
from alignx_fast.losses.base import Forward, Loss, LossSettings, ModelShape, Pairs, Vectors, translation_spans
from alignx_fast.training.run import train


class SpreadSettings(LossSettings):
    """Translations near each other, all else spread evenly over the sphere."""

    weight: float = Field(0.0, ge=0)
    """Weight in the sum; 0 is off."""
    sharpness: float = Field(2.0, gt=0)
    """t: how much more near neighbours count than far ones."""

    @property
    def needs_whole_step(self) -> bool:
        """Over all pairs of the optimizer step, by cached gradients, and not over those of a micro-batch alone."""
        return True

    def depth(self, layers: int, align_layer: int) -> int:
        """The first pass may stop at the align layer."""
        return align_layer


class Spread(Loss, settings=SpreadSettings):
    """mean |a_i - b_i|^2 + (U(a) + U(b)) / 2 with U(x) = log mean over i < j of exp(-t |x_i - x_j|^2), on unit vectors."""

    name = "spread"  # the field of the settings below, and `loss_spread` in the run log
    title = "alignment and uniformity"

    settings: SpreadSettings

    def __init__(self, settings: SpreadSettings, shape: ModelShape) -> None:
        super().__init__(settings, shape)
        self.align_layer = shape.align_layer

    @property
    def layers(self) -> tuple[int, ...]:
        """The hidden states that `read` needs."""
        return (self.align_layer,)

    def read(self, forward: Forward) -> Vectors:
        """The mean states of sources and of targets, [N, D] each."""
        return span_mean(forward.states[self.align_layer], translation_spans(forward.batch)).chunk(2)

    def of_vectors(self, vectors: Vectors, pairs: Pairs) -> torch.Tensor:
        """The value over N pairs."""
        a_ND, b_ND = (F.normalize(half_ND.float(), dim=-1) for half_ND in vectors)
        return (a_ND - b_ND).square().sum(-1).mean() + (self.uniformity(a_ND) + self.uniformity(b_ND)) / 2

    def uniformity(self, unit_ND: torch.Tensor) -> torch.Tensor:
        """U: 0 if all vectors are the same, negative if they are spread."""
        return torch.pdist(unit_ND).square().mul(-self.settings.sharpness).exp().mean().log()


class MyAlignSettings(AlignSettings):
    """Stage 1 with one loss more."""

    spread: SpreadSettings = SpreadSettings()


class MySettings(Settings):
    """A run with that stage 1."""

    align: MyAlignSettings = MyAlignSettings()


def main(folder: Path) -> list[float]:
    """Train; returns the loss as the run log holds it."""
    settings = MySettings.model_validate(
        {
            "name": "a loss of our own",
            "output": folder,
            "stages": ["align"],
            "model": {"tiny_width": 64, "tiny_vocabulary": 1000},
            "data": {"parallel": [{"path": "builtin:phrasebook", "max_rows": 500}], "languages": ["en", "de"], "dev_pairs": 32},
            "align": {
                "pairs_per_step": 32,
                "max_steps": 30,
                "learning_rate": 3e-3,
                "log_every": 2,
                "spread": {"weight": 0.3},
                "contrastive": {"weight": 0.0},
            },
            "evaluation": {"enabled": False},
        }
    )
    train(settings, resume=False)
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line["loss_spread"] for line in lines if "loss_spread" in line]


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/custom_loss"))
