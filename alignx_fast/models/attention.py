"""Attention over padding-free packed sequences: the one place that decides which implementation runs.

`packed_attention` is registered with transformers under the name `alignx_packed`. Under that name transformers builds no mask, so
sequences are kept apart here, by `cu_seq_lens_q` (the running sum of sequence lengths), which travels to every layer as a keyword
argument and therefore survives activation checkpointing.

Implementations, best first:
- flash_attn: the flash-attn package, fp16/bf16 on CUDA;
- varlen: FlashAttention inside torch (torch.nn.attention.varlen), fp16/bf16 on CUDA, no extra package;
- sdpa: one padded row per sequence inside the attention alone, any device and dtype.
"""

import importlib.util
import inspect
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from transformers import AttentionInterface, PreTrainedModel

from alignx_fast.errors import UserError

NAME = "alignx_packed"
_selected = "sdpa"


def available() -> dict[str, str]:
    """Every implementation with "" where it can run here, else the reason why not and what would help."""
    gpu = "" if torch.cuda.is_available() else "needs a CUDA GPU"
    if not gpu and torch.cuda.get_device_capability() < (8, 0):
        gpu = "needs a GPU of compute capability 8.0 or later"
    package = _flash_attn_fault()
    inside = "" if _varlen() else "needs torch 2.10 or later (torch.nn.attention.varlen)"
    return {"flash_attn": gpu or package, "varlen": gpu or inside, "sdpa": ""}


def select(requested: str, dtype: torch.dtype) -> str:
    """Choose the implementation for packed batches and remember it; returns its name.

    Raises:
        UserError: the requested implementation cannot run here.
    """
    global _selected
    reasons = available()
    if requested == "auto":
        fits = dtype in (torch.float16, torch.bfloat16)
        _selected = next(name for name, reason in reasons.items() if not reason and (fits or name == "sdpa"))
    elif reasons[requested]:
        raise UserError(f"model.attention is {requested}, which {reasons[requested]}. Use `--model.attention auto`.")
    else:
        _selected = requested
    return _selected


def use_packed_attention(model: PreTrainedModel) -> None:
    """Route the model's attention through `packed_attention`, where the family lets its attention be chosen."""
    if model.config._attn_implementation != NAME and type(model)._can_set_attn_implementation():
        model.set_attn_implementation(NAME)


def in_use(model: PreTrainedModel) -> str:
    """What packed batches of this model run through, for the record of a run."""
    if model.config._attn_implementation != NAME:
        return "the model's own, masked"
    if _selected == "varlen" and getattr(model.config.get_text_config(), "attn_logit_softcapping", None):
        return "sdpa"  # varlen has no soft-cap
    return _selected


def use_ordinary_attention(model: PreTrainedModel) -> None:
    """Attention for padded batches and generation: eager where scores are soft-capped (SDPA would leave that out), else sdpa."""
    if type(model)._can_set_attn_implementation():
        model.set_attn_implementation("eager" if getattr(model.config, "attn_logit_softcapping", None) else "sdpa")


def block_mask(model: PreTrainedModel, cu_seqlens: torch.Tensor, tokens: int) -> torch.Tensor | None:
    """None where `packed_attention` keeps sequences apart; else (XGLM) the additive causal mask [1, 1, T, T] that does it."""
    if model.config._attn_implementation == NAME:
        return None
    row_T = torch.repeat_interleave(cu_seqlens.diff().long(), output_size=tokens)
    allowed_TT = (row_T[:, None] == row_T[None, :]).tril()
    return torch.zeros_like(allowed_TT, dtype=model.dtype).masked_fill_(~allowed_TT, torch.finfo(model.dtype).min)[None, None]


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    cu_seq_lens_q: torch.Tensor,
    max_length_q: int,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each packed sequence.

    Args:
        query: [1, H, T, d]; key and value: [1, H_kv, T, d], H a multiple of H_kv.
        cu_seq_lens_q: int32 [B + 1], 0 = c_0 < c_1 < ... < c_B = T.
        max_length_q: the longest sequence in tokens.

    Returns:
        [1, T, H, d], and None in the place of attention weights.
    """
    if s_aux is not None:
        raise UserError(
            "This model uses attention sinks, which packed training does not support yet; choose another model family."
        )
    if query.dtype == torch.float32 and torch.is_autocast_enabled(query.device.type):
        # Rotary embedding in fp32 has raised queries and keys, and autocast knows no packed attention that would lower them again.
        query, key, value = (x.to(torch.get_autocast_dtype(query.device.type)) for x in (query, key, value))
    q_THd, k_THd, v_THd = (x[0].transpose(0, 1) for x in (query, key, value))
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    # Beyond these widths FlashAttention has no kernel. In torch's packed form it has no dropout and no soft-cap either: those few
    # models take the exact slow path.
    fits = query.dtype in (torch.float16, torch.bfloat16) and query.shape[-1] <= 256 and query.shape[-1] % 8 == 0
    if _selected == "flash_attn" and fits:
        from flash_attn import flash_attn_varlen_func

        out_THd = flash_attn_varlen_func(
            *(q_THd, k_THd, v_THd, cu_seq_lens_q, cu_seq_lens_q, max_length_q, max_length_q),
            dropout_p=dropout,
            softmax_scale=scale,
            causal=True,
            window_size=_window(sliding_window),
            softcap=softcap or 0.0,
        )
    elif _selected == "varlen" and fits and not softcap and not dropout:
        out_THd = _varlen_attention(q_THd, k_THd, v_THd, cu_seq_lens_q, max_length_q, scale, _window(sliding_window))
    else:
        out_THd = _padded_attention(q_THd, k_THd, v_THd, cu_seq_lens_q, scale, dropout, sliding_window, softcap)
    return out_THd[None], None


def _window(sliding_window: int | None) -> tuple[int, int]:
    # transformers counts the token itself, FlashAttention counts the tokens to its left
    return (sliding_window - 1, 0) if sliding_window else (-1, 0)


@cache
def _flash_attn_fault() -> str:
    if importlib.util.find_spec("flash_attn") is None:
        return "is not installed (pip install 'alignx-fast[flash-attn]')"
    try:
        from flash_attn import flash_attn_varlen_func  # noqa: F401
    except (ImportError, OSError) as error:  # built for another torch, or flash-attn-4, which is another package of this name
        return f"is installed but does not load ({str(error).partition(chr(10))[0]}); reinstall it for this torch"
    return ""


@cache
def _varlen() -> Callable[..., Any] | None:
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn


@cache
def _varlen_parameters() -> frozenset[str]:
    varlen = _varlen()
    return frozenset(inspect.signature(varlen).parameters) if varlen else frozenset()


def _varlen_attention(
    q_THd: torch.Tensor,
    k_THd: torch.Tensor,
    v_THd: torch.Tensor,
    cu_seqlens: torch.Tensor,
    max_length: int,
    scale: float,
    window: tuple[int, int],
) -> torch.Tensor:
    # The signature grew between torch 2.10 and 2.13: pass what this version knows, and do the rest ourselves.
    known = _varlen_parameters()
    options: dict[str, Any] = {}
    if "window_size" in known:
        options["window_size"] = window
    elif window[0] >= 0 and window[0] + 1 < max_length:
        raise UserError(
            "This model attends in a sliding window, which this torch cannot do packed: use torch >= 2.11 or flash-attn."
        )
    else:
        options["is_causal"] = True
    if "scale" in known:
        options["scale"] = scale
    else:
        q_THd = q_THd * (scale * q_THd.shape[-1] ** 0.5)
    if k_THd.shape[1] != q_THd.shape[1]:
        if "enable_gqa" in known:
            options["enable_gqa"] = True
        else:
            groups = q_THd.shape[1] // k_THd.shape[1]
            k_THd, v_THd = k_THd.repeat_interleave(groups, 1), v_THd.repeat_interleave(groups, 1)
    varlen = _varlen()
    assert varlen is not None
    return varlen(*(x.contiguous() for x in (q_THd, k_THd, v_THd)), cu_seqlens, cu_seqlens, max_length, max_length, **options)


def _padded_attention(
    q_THd: torch.Tensor,
    k_THd: torch.Tensor,
    v_THd: torch.Tensor,
    cu_seqlens: torch.Tensor,
    scale: float,
    dropout: float,
    sliding_window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    # Padding is on the right and attention is causal, so no real token ever sees a padded one and no padding mask is needed.
    # Rows are padded in groups of like length (by powers of two): one long row must not stretch a hundred short ones.
    lengths, device = cu_seqlens.diff().tolist(), q_THd.device
    groups: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        groups.setdefault((length - 1).bit_length(), []).append(row)
    places, pieces = [], []
    for rows in groups.values():
        rows_B = torch.tensor(rows, device=device)
        column_L = torch.arange(max(lengths[row] for row in rows), device=device)
        position_BL = cu_seqlens[rows_B].long()[:, None] + column_L
        real_BL = position_BL < cu_seqlens[rows_B + 1][:, None]
        gather_BL = position_BL.clamp(max=q_THd.shape[0] - 1)
        q_BHLd, k_BHLd, v_BHLd = (x[gather_BL].transpose(1, 2) for x in (q_THd, k_THd, v_THd))
        out_BHLd = _causal_attention(q_BHLd, k_BHLd, v_BHLd, scale, dropout, sliding_window, softcap)
        pieces.append(out_BHLd.transpose(1, 2)[real_BL])
        places.append(position_BL[real_BL])
    back_T = torch.cat(places).argsort()
    return torch.cat(pieces)[back_T]


def _causal_attention(
    q_BHLd: torch.Tensor,
    k_BHLd: torch.Tensor,
    v_BHLd: torch.Tensor,
    scale: float,
    dropout: float,
    sliding_window: int | None,
    softcap: float | None,
) -> torch.Tensor:
    length, grouped = q_BHLd.shape[2], k_BHLd.shape[1] != q_BHLd.shape[1]
    mask_LL = None
    if softcap or (sliding_window and sliding_window < length):
        column_L = torch.arange(length, device=q_BHLd.device)
        distance_LL = column_L[:, None] - column_L[None, :]
        mask_LL = (distance_LL >= 0) & (distance_LL < (sliding_window or length))
    if not softcap or mask_LL is None:
        return F.scaled_dot_product_attention(
            q_BHLd, k_BHLd, v_BHLd, mask_LL, dropout, is_causal=mask_LL is None, scale=scale, enable_gqa=grouped
        )
    repeats = q_BHLd.shape[1] // k_BHLd.shape[1]
    k_BHLd, v_BHLd = k_BHLd.repeat_interleave(repeats, 1), v_BHLd.repeat_interleave(repeats, 1)
    scores_BHLL = softcap * torch.tanh(q_BHLd @ k_BHLd.transpose(-1, -2) * scale / softcap)
    weights_BHLL = scores_BHLL.masked_fill(~mask_LL, -torch.inf).float().softmax(-1).to(q_BHLd.dtype)
    return F.dropout(weights_BHLL, dropout) @ v_BHLd


AttentionInterface.register(NAME, packed_attention)
