"""Cross entropy of a linear head by torch alone, for CPUs and for GPUs without liger-kernel: gradients are taken in the forward pass.

For rows h_k with labels y_k, logits z_k = W h_k + b, soft-capped where the model does that:

    loss = sum over k of (logsumexp(z_k) - z_k[y_k]),      d loss / d z_k = softmax(z_k) - onehot(y_k)

One chunk of logits exists at a time, and each is multiplied out once. Autograd would have to keep them all, or compute them again.
"""

import torch
import torch.nn.functional as F
from torch import nn

LOGITS_PER_CHUNK = 1 << 23
"""Logits held at once: 32 MiB in fp32, about what a CPU's last cache holds."""


def chunked_cross_entropy(
    head: nn.Linear, hidden_KD: torch.Tensor, labels_K: torch.Tensor, softcap: float | None
) -> torch.Tensor:
    """Sum of the cross entropies of `head(hidden)`, in at least fp32.

    Args:
        head: linear layer D -> V, with or without bias.
        labels_K: class of every row.
        softcap: logits become softcap * tanh(logits / softcap).
    """
    kind = hidden_KD.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else head.weight.dtype
    # Cast once here, so that autocast does not cast the whole weight anew for every chunk.
    bias_V = None if head.bias is None else head.bias.to(dtype)
    inputs = (hidden_KD.to(dtype), head.weight.to(dtype), bias_V, labels_K, softcap)
    total: torch.Tensor = _ChunkedCrossEntropy.apply(*inputs)  # type: ignore[no-untyped-call]
    return total


class _Context(torch.autograd.function.FunctionCtx):
    needs_input_grad: tuple[bool, ...]
    gradients: tuple[torch.Tensor | None, ...]
    """At hidden states, weight and bias, for a gradient of one at the loss."""


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: _Context,
        hidden_KD: torch.Tensor,
        weight_VD: torch.Tensor,
        bias_V: torch.Tensor | None,
        labels_K: torch.Tensor,
        softcap: float | None,
    ) -> torch.Tensor:
        wide = torch.promote_types(hidden_KD.dtype, torch.float32)
        wanted = ctx.needs_input_grad
        total = hidden_KD.new_zeros((), dtype=wide)
        grad_hidden_KD = torch.empty_like(hidden_KD) if wanted[0] else None
        grad_weight_VD = torch.zeros_like(weight_VD, dtype=wide) if wanted[1] else None
        grad_bias_V = torch.zeros_like(bias_V, dtype=wide) if wanted[2] and bias_V is not None else None
        rows = max(1, min(LOGITS_PER_CHUNK // len(weight_VD), len(labels_K)))
        buffer_CV = hidden_KD.new_empty(
            rows, len(weight_VD), dtype=wide
        )  # fresh memory for every chunk would cost more than the arithmetic
        for start in range(0, len(labels_K), rows):
            hidden_CD, labels_C1 = hidden_KD[start : start + rows], labels_K[start : start + rows, None]
            logits_CV = buffer_CV[: len(hidden_CD)].copy_(F.linear(hidden_CD, weight_VD, bias_V))
            if softcap:
                logits_CV.div_(softcap).tanh_().mul_(softcap)
            norm_C1 = logits_CV.logsumexp(1, keepdim=True)
            total += (norm_C1 - logits_CV.gather(1, labels_C1)).sum()
            if not any(wanted):
                continue
            slope_CV = 1 - (logits_CV / softcap).square() if softcap else None
            grad_CV = logits_CV.sub_(norm_C1).exp_()
            grad_CV.scatter_add_(1, labels_C1, grad_CV.new_full(labels_C1.shape, -1.0))
            if slope_CV is not None:
                grad_CV *= slope_CV
            if grad_bias_V is not None:
                grad_bias_V += grad_CV.sum(0)
            narrow_CV = grad_CV.to(hidden_KD.dtype)
            if grad_hidden_KD is not None:
                grad_hidden_KD[start : start + rows] = narrow_CV @ weight_VD
            if grad_weight_VD is not None:
                grad_weight_VD += narrow_CV.T @ hidden_CD
        ctx.gradients = (grad_hidden_KD, grad_weight_VD, grad_bias_V)
        return total

    @staticmethod
    def backward(ctx: _Context, grad: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        return *(None if x is None else x * grad for x in ctx.gradients), None, None
