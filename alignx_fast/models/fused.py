"""Fused kernels of liger-kernel on CUDA: norms, gated MLPs and rotary embedding inside the model, cross entropy at the head.

Everything here is optional: without liger-kernel, on a CPU, or for a family not listed, transformers' own layers and the chunked loss
of `models/forward.py` run instead, with the same result up to rounding.
"""

import importlib.util
import sys
from functools import cache
from typing import Protocol

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

FAMILIES = {
    "llama": "silu",
    "mistral": "silu",
    "qwen2": "silu",
    "qwen3": "silu",
    "gemma": "gelu_pytorch_tanh",
    "gemma2": "gelu_pytorch_tanh",
}
"""Model types whose layers are replaced, and the activation that the fused MLP computes whatever the model asks for."""

LOGITS_PER_CHUNK = 1 << 26
"""Logits the fused cross entropy aims to hold at once: 128 MiB in bf16. Smaller chunks read the head's weights too often."""


@cache
def installed() -> bool:
    """Whether liger-kernel can be imported; its kernels run on CUDA only."""
    return importlib.util.find_spec("liger_kernel") is not None


def fuses_layers(config: PreTrainedConfig) -> bool:
    """Whether this model's layers have fused counterparts that compute the same."""
    text = config.get_text_config()
    activation = getattr(text, "hidden_activation", None) or getattr(text, "hidden_act", None)
    return installed() and activation is not None and FAMILIES.get(text.model_type) == activation


def fuse_layers(model: PreTrainedModel) -> bool:
    """Replace norms, MLPs and rotary embedding of a model on a CUDA GPU by fused ones; returns whether that was done."""
    if model.device.type != "cuda" or not fuses_layers(model.config):
        return False
    from liger_kernel.transformers.monkey_patch import _apply_liger_kernel_to_instance

    # liger also replaces classes and functions of the family's module, for all models to come, on a CPU too: these are put back, but
    # for the rotary embedding, a function that cannot be replaced per instance.
    family = vars(sys.modules[type(model).__module__])
    before = dict(family)
    _apply_liger_kernel_to_instance(model, cross_entropy=False, fused_linear_cross_entropy=False)
    fused_rotary = family["apply_rotary_pos_emb"]
    family.update(before)
    if not hasattr(before["apply_rotary_pos_emb"], "without_gpu"):
        family["apply_rotary_pos_emb"] = _by_device(fused_rotary, before["apply_rotary_pos_emb"])
    return True


class _Rotary(Protocol):
    """`apply_rotary_pos_emb` of a family's module; what follows the queries differs from family to family."""

    def __call__(self, q: torch.Tensor, *args: object, **kwargs: object) -> tuple[torch.Tensor, torch.Tensor]: ...


def _by_device(on_gpu: _Rotary, without_gpu: _Rotary) -> _Rotary:
    def apply_rotary_pos_emb(q: torch.Tensor, *args: object, **kwargs: object) -> tuple[torch.Tensor, torch.Tensor]:
        return (on_gpu if q.is_cuda else without_gpu)(q, *args, **kwargs)

    apply_rotary_pos_emb.without_gpu = without_gpu  # type: ignore[attr-defined]
    return apply_rotary_pos_emb


def is_plain_head(head: nn.Module, config: PreTrainedConfig) -> bool:
    """Whether the head is a plain linear layer whose logits are not scaled."""
    text = config.get_text_config()
    scale = (getattr(text, "logit_scale", None) or 1.0) / (getattr(text, "logits_scaling", None) or 1.0)
    return type(head) is nn.Linear and scale == 1.0


def fuses_head(head: nn.Module, config: PreTrainedConfig) -> bool:
    """Whether the head is a plain linear layer whose logits are not scaled, and liger-kernel can fuse its cross entropy."""
    return installed() and is_plain_head(head, config)


def fused_cross_entropy(head: nn.Linear, hidden_KD: torch.Tensor, labels_K: torch.Tensor, softcap: float | None) -> torch.Tensor:
    """Sum of the cross entropies of `head(hidden)` in fp32; gradients are taken in the forward, chunk by chunk.

    Args:
        head: linear layer D -> V, with or without bias.
        labels_K: class of every row, none of them to be left out.
        softcap: logits become softcap * tanh(logits / softcap).
    """
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    # Cast here rather than by autocast inside: that would cast the whole weight anew for every chunk.
    kind = hidden_KD.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else head.weight.dtype
    total: torch.Tensor = liger_fused_linear_cross_entropy(
        hidden_KD.to(dtype),
        head.weight.to(dtype),
        labels_K,
        bias=None if head.bias is None else head.bias.to(dtype),
        reduction="sum",
        softcap=softcap,
        accum_dtype=torch.float32,
        chunk_mem_const=_chunk_factor(*hidden_KD.shape),
    )
    return total


def _chunk_factor(rows: int, width: int) -> int:
    """liger's unit of chunk size is as many logits as there are hidden values."""
    return max(1, LOGITS_PER_CHUNK // max(1, rows * width))


def rows_per_chunk(rows: int, width: int, vocabulary: int) -> int:
    """Rows whose logits the fused cross entropy holds at once."""
    chunks = -(-vocabulary // (_chunk_factor(rows, width) * width))
    return min(rows, 1 << (-(-rows // chunks) - 1).bit_length())
