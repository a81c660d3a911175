"""The list of losses of a stage."""

import torch
from torch import nn

from alignx_fast.config import StageSettings
from alignx_fast.losses.base import Loss, LossSettings, ModelShape
from alignx_fast.losses.next_token import NextTokenSettings
from alignx_fast.models.capture import causal_model, num_layers


def stage_losses(settings: StageSettings) -> list[LossSettings]:
    """Settings of the losses that a stage holds: next-token prediction first, then those with a weight or a dev value without one."""
    return [NextTokenSettings(), *(loss for loss in settings.losses if loss.weight or loss.loss.measured_without_weight)]


def model_shape(model: nn.Module, align_layer: int) -> ModelShape:
    """What losses may know of a model."""
    return ModelShape(causal_model(model).config.get_text_config().hidden_size, num_layers(model), align_layer)


def build_losses(settings: StageSettings, shape: ModelShape, *, seed: int) -> list[Loss]:
    """The losses of a stage; the parameters of each depend on `seed` alone, and the random state is left as it was."""
    losses = []
    with torch.random.fork_rng(devices=[]):
        for group in stage_losses(settings):
            torch.manual_seed(seed)
            losses.append(group.loss(group, shape))
    return losses
