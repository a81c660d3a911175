"""The list of losses of a stage: which there are, their seeds, their checkpoints, and a loss that this package does not know."""

import contextlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from support.tiny_models import random_rows, tiny_model
from torch import nn

from alignx_fast.config import AlignSettings, InstructSettings
from alignx_fast.data.packing import pack
from alignx_fast.errors import UserError
from alignx_fast.losses.base import Forward, Loss, LossSettings, ModelShape, Pairs, Vectors
from alignx_fast.losses.build import build_losses, model_shape
from alignx_fast.training.checkpoints import LOSSES_FILE, load_losses, save_losses
from alignx_fast.training.step import AlignStep

SHAPE = ModelShape(width=32, layers=3, align_layer=2)


class DistanceSettings(LossSettings):
    """Settings of a loss of the test's own."""

    scale: float = 1.0


class Distance(Loss, settings=DistanceSettings):
    """Squared distance of the mean states of a pair, times a learned scale."""

    name = "distance"
    title = "distance"

    settings: DistanceSettings

    def __init__(self, settings: DistanceSettings, shape: ModelShape) -> None:
        super().__init__(settings, shape)
        self.layer, self.scale = shape.align_layer, nn.Parameter(torch.rand(2) * settings.scale)

    @property
    def layers(self) -> tuple[int, ...]:
        return (self.layer,)

    def read(self, forward: Forward) -> Vectors:
        states, sides = forward.states[self.layer], (forward.batch.source_spans, forward.batch.target_spans)
        return tuple(torch.stack([states[start:end].mean(0) for start, end in spans.tolist()]) for spans in sides)

    def of_vectors(self, vectors: Vectors, pairs: Pairs) -> torch.Tensor:
        return (vectors[0] - vectors[1]).square().mean() * self.scale.sum()


class WithDistance(AlignSettings):
    """The settings of stage 1 with one more loss."""

    distance: DistanceSettings = DistanceSettings(weight=0.5)


def names(losses: list[Loss]) -> list[str]:
    return [loss.name for loss in losses]


def test_the_losses_of_each_stage() -> None:
    assert names(build_losses(InstructSettings(), SHAPE, seed=0)) == ["ntp"]
    assert names(build_losses(AlignSettings(), SHAPE, seed=0)) == ["ntp", "contrastive", "matching"]
    assert names(build_losses(AlignSettings().without_losses(), SHAPE, seed=0)) == ["ntp", "contrastive", "matching"]
    assert not AlignSettings().without_losses().has_losses


def test_a_loss_from_outside_is_trained_measured_and_saved(tmp_path: Path) -> None:
    settings = WithDistance()
    model = tiny_model()
    losses = build_losses(settings, model_shape(model, 2), seed=0)
    assert names(losses) == ["ntp", "contrastive", "matching", "distance"]
    step = AlignStep(model, losses, autocast=contextlib.nullcontext)
    batches = pack(random_rows(6), 60, train_on_prompt=True)
    terms = step(batches, torch.Tensor.backward)
    assert terms["loss_distance"] > 0
    assert losses[-1].scale.grad.abs().min() > 0
    assert step.dev_terms(batches)["loss_distance"] == pytest.approx(float(terms["loss_distance"]), rel=1e-4)
    save_losses(losses, tmp_path)
    assert "distance.scale" in load_file(tmp_path / LOSSES_FILE)
    others = build_losses(settings, SHAPE, seed=1)
    load_losses(others, tmp_path)
    for loss, other in zip(losses, others, strict=True):
        assert loss.checkpoint().keys() == other.checkpoint().keys()
        for name, tensor in loss.checkpoint().items():
            assert torch.equal(tensor, other.checkpoint()[name]), name


def test_parameters_depend_on_the_seed_and_on_no_other_loss() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    alone = build_losses(AlignSettings(), SHAPE, seed=3)[2]
    assert torch.equal(torch.get_rng_state(), before)
    beside = build_losses(WithDistance(), SHAPE, seed=3)[2]
    other = build_losses(AlignSettings(), SHAPE, seed=4)[2]
    assert torch.equal(alone.gate, beside.gate)
    assert not torch.equal(alone.gate, other.gate)


def test_checkpoints_keep_their_names(tmp_path: Path) -> None:
    losses = build_losses(AlignSettings(), SHAPE, seed=0)
    save_losses(losses, tmp_path)
    expected = {"heads.gate", "heads.up", "heads.down", "heads.log_temperature"}
    assert load_file(tmp_path / LOSSES_FILE).keys() == expected
    with pytest.raises(UserError, match=r"does not hold distance\.scale, so this checkpoint was not made with these losses"):
        load_losses(build_losses(WithDistance(), SHAPE, seed=0), tmp_path)
