"""Which attention a model's packed batches run through: it is decided here alone.

Every implementation of packed.py is registered with transformers under a name of its own, and a model carries that name in its
configuration, so two models in one process may differ. Under these names transformers builds no mask.

Implementations, best first:
- flash_attn: the flash-attn package, fp16/bf16 on CUDA;
- varlen: FlashAttention inside torch (torch.nn.attention.varlen), fp16/bf16 on CUDA, no extra package;
- sdpa: one padded row per sequence inside the attention alone, any device and dtype.
"""

from functools import partial
from typing import Literal

import torch
from transformers import AttentionInterface, PreTrainedModel

from alignx_fast.errors import UserError
from alignx_fast.hardware import bf16_works, on_gpu
from alignx_fast.models import packed
from alignx_fast.models.packed import Implementation

# transformers searches such names for "flash" and "sdpa" and then checks things that do not hold here.
REGISTERED: dict[Implementation, str] = {"flash_attn": "alignx_fa2", "varlen": "alignx_varlen", "sdpa": "alignx_padded"}
"""Our name of every implementation -> its name in transformers."""

for _implementation, _name in REGISTERED.items():
    AttentionInterface.register(_name, partial(packed.packed_attention, _implementation))


def available() -> dict[Implementation, str]:
    """Every implementation with "" where it can run here, else the reason why not and what would help."""
    gpu = "" if on_gpu() else "needs a CUDA GPU"
    if not gpu and not bf16_works():
        gpu = "needs a GPU of compute capability 8.0 or later"
    torch_version = "" if packed.varlen_function() else "needs torch 2.10 or later (torch.nn.attention.varlen)"
    return {"flash_attn": gpu or packed.flash_attn_fault(), "varlen": gpu or torch_version, "sdpa": ""}


def choose(requested: Literal["auto"] | Implementation, dtype: torch.dtype) -> Implementation:
    """The implementation to use for queries, keys and values in `dtype`: as requested, or the best that runs here.

    Raises:
        UserError: the requested implementation cannot run here.
    """
    reasons = available()
    if requested == "auto":
        fits = dtype in (torch.float16, torch.bfloat16)
        return next(name for name, reason in reasons.items() if not reason and (fits or name == "sdpa"))
    if reasons[requested]:
        raise UserError(f"model.attention is {requested}, which {reasons[requested]}. Use `--model.attention auto`.")
    return requested


def use_packed_attention(model: PreTrainedModel, implementation: Implementation = "sdpa") -> None:
    """Run the model's packed batches through `implementation`, where the family lets its attention be chosen."""
    if implementation == "varlen" and _softcap(model):
        implementation = "sdpa"  # varlen cannot cap the scores
    _set(model, REGISTERED[implementation])


def use_ordinary_attention(model: PreTrainedModel) -> None:
    """Attention for padded batches and generation: eager where scores are soft-capped (SDPA would leave that out), else sdpa."""
    _set(model, "eager" if _softcap(model) else "sdpa")


def is_packed(model: PreTrainedModel) -> bool:
    """Whether the model runs through one of our implementations now."""
    return model.config._attn_implementation in REGISTERED.values()


def in_use(model: PreTrainedModel) -> str:
    """What packed batches of this model run through, for the record of a run."""
    names: dict[str, str] = {registered: name for name, registered in REGISTERED.items()}
    return names.get(model.config._attn_implementation or "", "the model's own, masked")


def block_mask(model: PreTrainedModel, cu_seqlens: torch.Tensor, tokens: int) -> torch.Tensor | None:
    """None where our attention keeps sequences apart; else (XGLM) the additive causal mask [1, 1, T, T] that does it."""
    if is_packed(model):
        return None
    row_T = torch.repeat_interleave(cu_seqlens.diff().long(), output_size=tokens)
    allowed_TT = (row_T[:, None] == row_T[None, :]).tril()
    return torch.zeros_like(allowed_TT, dtype=model.dtype).masked_fill_(~allowed_TT, torch.finfo(model.dtype).min)[None, None]


def restore_attention(model: PreTrainedModel, name: str | None) -> None:
    """Give the model back the attention that its configuration named before."""
    if name is not None:
        _set(model, name)


def _set(model: PreTrainedModel, name: str) -> None:
    if type(model)._can_set_attn_implementation():
        model.set_attn_implementation(name)


def _softcap(model: PreTrainedModel) -> float | None:
    cap: float | None = getattr(model.config.get_text_config(), "attn_logit_softcapping", None)
    return cap
