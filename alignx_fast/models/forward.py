"""Running a causal language model on packed batches: body, head, and ordinary generation."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import nn

from alignx_fast.errors import UserError
from alignx_fast.models.attention import block_mask, restore_attention, use_ordinary_attention
from alignx_fast.models.capture import body, causal_model

LOGITS_PER_CHUNK = 1 << 25
"""Logits computed at once: 128 MiB in fp32."""


class Packed(Protocol):
    """What the forward pass needs of a packed batch (see `alignx_fast.data.packing.PackedBatch`)."""

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    label_positions: torch.Tensor
    cu_seqlens: torch.Tensor
    max_length: int


def packed_forward(model: nn.Module, batch: Packed) -> torch.Tensor:
    """Last hidden state [T, D], after the final norm; sequences do not see each other, and no logits are made."""
    output = body(model)(
        input_ids=batch.input_ids,
        position_ids=batch.position_ids,
        attention_mask=block_mask(causal_model(model), batch.cu_seqlens, batch.input_ids.shape[1]),
        use_cache=False,
        cu_seq_lens_q=batch.cu_seqlens,
        max_length_q=batch.max_length,
    )
    hidden_TD: torch.Tensor = output.last_hidden_state[0]
    return hidden_TD


def head_module(model: nn.Module) -> nn.Module:
    """The module between the last hidden state and the logits: a linear layer, or a small stack (BERT)."""
    causal = causal_model(model)
    heads = [child for child in causal.children() if child is not body(model) and next(child.parameters(), None) is not None]
    if len(heads) != 1:
        raise UserError(f"{type(causal).__name__} has {len(heads)} modules beside its body; exactly one head is supported.")
    return heads[0]


def head_logits(model: nn.Module, hidden_TD: torch.Tensor) -> torch.Tensor:
    """Logits [T, V], with the scaling and soft-capping of the families that have them."""
    config = causal_model(model).config.get_text_config()
    logits_TV: torch.Tensor = head_module(model)(hidden_TD)
    if (scale := getattr(config, "logit_scale", 1.0) / getattr(config, "logits_scaling", 1.0)) != 1.0:
        logits_TV = logits_TV * scale
    if softcap := getattr(config, "final_logit_softcapping", None):
        logits_TV = softcap * torch.tanh(logits_TV / softcap)
    return logits_TV


@contextmanager
def generation_mode(model: nn.Module) -> Iterator[None]:
    """Ordinary padded attention, which a key-value cache needs, inside the block; the model's own attention again after it."""
    causal = causal_model(model)
    own_attention = causal.config._attn_implementation
    use_ordinary_attention(causal)
    try:
        yield
    finally:
        restore_attention(causal, own_attention)
