"""Activation checkpointing: decoder layers whose activations are recomputed in backward instead of kept."""

from torch import nn

from alignx_fast.config import ModelSettings
from alignx_fast.errors import UserError
from alignx_fast.hardware import on_gpu
from alignx_fast.models.capture import causal_model


def checkpoint_layers(model: nn.Module, settings: ModelSettings) -> None:
    """Recompute every n-th decoder layer in training, n = `gradient_checkpointing` (true: every layer; false: none).

    Loss and gradients stay the same, dropout included; each recomputed layer costs one more forward pass through it and keeps its
    input alone: T x D values for T tokens. With `offload_checkpoints` that input waits in CPU memory, where there is a GPU.

    Raises:
        UserError: the model family has no checkpointing.
    """
    every = int(settings.gradient_checkpointing)
    if not every:
        return
    causal = causal_model(model)
    # gradient_checkpointing_enable is the older name of the same (transformers 5.17), deprecated in 5.23.
    enable = getattr(causal, "activation_checkpointing_enable", None) or causal.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False}, every_n_layers=every, offload=settings.offload_checkpoints and on_gpu())
    except ValueError as error:
        raise UserError(f"{error} Use `--model.gradient_checkpointing false`.") from None
