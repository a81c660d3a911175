"""Causal attention over packed sequences, in three implementations that compute the same.

Sequences are kept apart by `cu_seq_lens_q` (the running sum of sequence lengths), which travels to every layer as a keyword argument
and therefore survives activation checkpointing.

Shape legend: T tokens of a packed batch, B sequences in it, H heads, d width of a head, L tokens of a padded row.
"""

import importlib.util
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypedDict, cast

import torch
import torch.nn.functional as F

from alignx_fast.errors import UserError

Implementation = Literal["flash_attn", "varlen", "sdpa"]


@dataclass(frozen=True)
class Problem:
    """What to attend over, and how."""

    q_THd: torch.Tensor
    k_THd: torch.Tensor
    """Heads that divide those of the queries; the same for the values."""
    v_THd: torch.Tensor
    cu_seqlens: torch.Tensor
    """int32 [B + 1], 0 = c_0 < c_1 < ... < c_B = T."""
    max_length: int
    """The longest sequence in tokens."""
    scale: float
    dropout: float
    sliding_window: int | None
    """Tokens that a token sees, itself among them; None: all before it."""
    softcap: float | None
    """Scores become softcap * tanh(scores / softcap)."""


def packed_attention(
    implementation: Implementation,
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
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Causal attention within each packed sequence, as transformers calls it.

    Args:
        query: [1, H, T, d]; key and value: [1, H_kv, T, d], H a multiple of H_kv.
        cu_seq_lens_q: see `Problem.cu_seqlens`.
        max_length_q: the longest sequence in tokens.

    Returns:
        [1, T, H, d], and None in the place of attention weights.

    Raises:
        UserError: the model uses attention sinks.
    """
    if s_aux is not None:
        raise UserError(
            "This model uses attention sinks, which packed training does not support yet; choose another model family."
        )
    if query.dtype == torch.float32 and torch.is_autocast_enabled(query.device.type):
        # Rotary embedding in fp32 has raised queries and keys, and autocast does not lower the inputs of these functions.
        query, key, value = (x.to(torch.get_autocast_dtype(query.device.type)) for x in (query, key, value))
    q_THd, k_THd, v_THd = (x[0].transpose(0, 1) for x in (query, key, value))
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    problem = Problem(q_THd, k_THd, v_THd, cu_seq_lens_q, max_length_q, scale, dropout, sliding_window, softcap)
    # Beyond these widths FlashAttention has no kernel. In torch's packed form it has no dropout and no soft-cap either: those few
    # models take the slower, exact implementation.
    fits = query.dtype in (torch.float16, torch.bfloat16) and query.shape[-1] <= 256 and query.shape[-1] % 8 == 0
    if implementation == "flash_attn" and fits:
        out_THd = flash_attn_attention(problem)
    elif implementation == "varlen" and fits and not softcap and not dropout:
        out_THd = varlen_attention(problem)
    else:
        out_THd = padded_attention(problem)
    return out_THd[None], None


# flash_attn: the package.


@cache
def flash_attn_fault() -> str:
    """Why the flash-attn package cannot be used; "" where it can."""
    if importlib.util.find_spec("flash_attn") is None:
        return "is not installed (pip install 'alignx-fast[flash-attn]')"
    try:
        from flash_attn import flash_attn_varlen_func  # noqa: F401
    except (ImportError, OSError) as error:  # built for another torch, or flash-attn-4, which is another package of this name
        return f"is installed but does not load ({str(error).partition(chr(10))[0]}); reinstall it for this torch"
    return ""


def flash_attn_attention(p: Problem) -> torch.Tensor:
    """By the flash-attn package; [T, H, d]."""
    from flash_attn import flash_attn_varlen_func

    out_THd: torch.Tensor = flash_attn_varlen_func(
        *(p.q_THd, p.k_THd, p.v_THd, p.cu_seqlens, p.cu_seqlens, p.max_length, p.max_length),
        dropout_p=p.dropout,
        softmax_scale=p.scale,
        causal=True,
        window_size=_window(p.sliding_window),
        softcap=p.softcap or 0.0,
    )
    return out_THd


def _window(sliding_window: int | None) -> tuple[int, int]:
    """Tokens to the left and to the right: transformers counts the token itself, FlashAttention does not."""
    return (sliding_window - 1, 0) if sliding_window else (-1, 0)


# varlen: FlashAttention inside torch.


class VarlenOptions(TypedDict, total=False):
    """The parameters of `varlen_attn` that not every torch has."""

    window_size: tuple[int, int]
    is_causal: bool
    scale: float
    enable_gqa: bool


@cache
def varlen_function() -> Callable[..., torch.Tensor] | None:
    """torch's packed attention; None where this torch has none."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return cast(Callable[..., torch.Tensor], varlen_attn)  # a tuple only where more than the output is asked for


@cache
def _varlen_parameters() -> frozenset[str]:
    varlen = varlen_function()
    return frozenset(inspect.signature(varlen).parameters) if varlen else frozenset()


def varlen_attention(p: Problem) -> torch.Tensor:
    """By `torch.nn.attention.varlen`, without dropout and soft-cap; [T, H, d].

    The signature grew between torch 2.10 and 2.13: what this version does not know is done here.

    Raises:
        UserError: a sliding window, and this torch has none.
    """
    known, options = _varlen_parameters(), VarlenOptions()
    q_THd, k_THd, v_THd = p.q_THd, p.k_THd, p.v_THd
    window = _window(p.sliding_window)
    if "window_size" in known:
        options["window_size"] = window
    elif window[0] >= 0 and window[0] + 1 < p.max_length:
        raise UserError(
            "This model attends in a sliding window, which this torch cannot do packed: use torch >= 2.11 or flash-attn."
        )
    else:
        options["is_causal"] = True
    if "scale" in known:
        options["scale"] = p.scale
    else:
        q_THd = q_THd * (p.scale * q_THd.shape[-1] ** 0.5)
    if k_THd.shape[1] != q_THd.shape[1]:
        if "enable_gqa" in known:
            options["enable_gqa"] = True
        else:
            groups = q_THd.shape[1] // k_THd.shape[1]
            k_THd, v_THd = k_THd.repeat_interleave(groups, 1), v_THd.repeat_interleave(groups, 1)
    varlen = varlen_function()
    assert varlen is not None
    inputs = [x.contiguous() for x in (q_THd, k_THd, v_THd)]
    return varlen(*inputs, p.cu_seqlens, p.cu_seqlens, p.max_length, p.max_length, **options)


# sdpa: one padded row per sequence.


def padded_attention(p: Problem) -> torch.Tensor:
    """By torch's attention over padded rows, on any device and in any number format; [T, H, d].

    Padding is on the right and attention is causal, so no real token ever sees a padded one and no padding mask is needed. Rows are
    padded in groups of like length (by powers of two): one long row must not stretch a hundred short ones.
    """
    lengths, device = p.cu_seqlens.diff().tolist(), p.q_THd.device
    groups: dict[int, list[int]] = {}
    for row, length in enumerate(lengths):
        groups.setdefault((length - 1).bit_length(), []).append(row)
    positions, outputs = [], []
    for rows in groups.values():
        rows_B = torch.tensor(rows, device=device)
        column_L = torch.arange(max(lengths[row] for row in rows), device=device)
        position_BL = p.cu_seqlens[rows_B].long()[:, None] + column_L
        real_BL = position_BL < p.cu_seqlens[rows_B + 1][:, None]
        gather_BL = position_BL.clamp(max=p.q_THd.shape[0] - 1)
        q_BHLd, k_BHLd, v_BHLd = (x[gather_BL].transpose(1, 2) for x in (p.q_THd, p.k_THd, p.v_THd))
        out_BHLd = _causal_attention(q_BHLd, k_BHLd, v_BHLd, p.scale, p.dropout, p.sliding_window, p.softcap)
        outputs.append(out_BHLd.transpose(1, 2)[real_BL])
        positions.append(position_BL[real_BL])
    back_T = torch.cat(positions).argsort()
    return torch.cat(outputs)[back_T]


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
    if sliding_window and sliding_window < length:
        mask_LL = _causal_mask(length, q_BHLd.device).triu(1 - sliding_window)
    # On a CPU, torch's gradient of short bf16 rows takes two to nine times as long as plain products; long ones would fill the memory.
    short_on_cpu = q_BHLd.device.type == "cpu" and q_BHLd.dtype == torch.bfloat16 and length <= 256
    if not softcap and not short_on_cpu:
        return F.scaled_dot_product_attention(
            q_BHLd, k_BHLd, v_BHLd, mask_LL, dropout, is_causal=mask_LL is None, scale=scale, enable_gqa=grouped
        )
    batch, heads, _, width = q_BHLd.shape
    kv_heads = k_BHLd.shape[1]
    q_BGRd = (q_BHLd * scale).reshape(batch, kv_heads, heads // kv_heads * length, width)  # heads of a group one below the other
    scores_BHLL = (q_BGRd @ k_BHLd.transpose(-1, -2)).view(batch, heads, length, length)
    if softcap:
        scores_BHLL = softcap * torch.tanh(scores_BHLL / softcap)
    mask_LL = _causal_mask(length, q_BHLd.device) if mask_LL is None else mask_LL
    weights_BHLL = scores_BHLL.masked_fill(~mask_LL, -torch.inf).softmax(
        -1, dtype=torch.promote_types(q_BHLd.dtype, torch.float32)
    )
    weights_BGRL = F.dropout(weights_BHLL.to(q_BHLd.dtype), dropout).view(batch, kv_heads, -1, length)
    return (weights_BGRL @ v_BHLd).view(batch, heads, length, width)


def _causal_mask(length: int, device: torch.device) -> torch.Tensor:
    """[L, L] bool: whether the token of the row sees that of the column."""
    return torch.ones(length, length, dtype=torch.bool, device=device).tril()
