"""What every model gets before it is trained or used, whether its weights were loaded or drawn at random."""

from transformers import PreTrainedModel

from alignx_fast.config import ModelSettings
from alignx_fast.hardware import product_dtype
from alignx_fast.models.attention import choose, use_packed_attention
from alignx_fast.models.checkpointing import checkpoint_layers
from alignx_fast.models.fused import fuse_layers


def set_up(model: PreTrainedModel, settings: ModelSettings) -> None:
    """Packed attention, fused layers on a GPU, and activation checkpointing, as the settings ask.

    Raises:
        UserError: the attention that was asked for does not run here, or the family has no checkpointing.
    """
    use_packed_attention(model, choose(settings.attention, product_dtype(settings)))
    fuse_layers(model)
    checkpoint_layers(model, settings)
