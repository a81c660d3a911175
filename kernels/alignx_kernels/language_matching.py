"""Pairwise language-matching loss without the pairs: door, projection, autograd.

gate [e_a ; e_b] = gate_1 e_a + gate_2 e_b, the same for up, and the loss needs z1 - z0 only:

    z_ab = sum_m w_m silu(ga_am + gb_bm) (ua_am + ub_bm)        w = down[1] - down[0]
    loss_ab = softplus(-z_ab) if a and b share a language, else softplus(z_ab)

so each sentence is projected once, by one library product, and only z_ab is worked out pair by pair. Autograd carries the
gradients through the projection; the pairs are one operator, `language_pairs`. The product is in fp32, on a GPU at the precision
of `torch.set_float32_matmul_precision`: with "high" it runs on tensor cores, in which embeddings and weights in bf16 or fp16
are exact, and only gradients are rounded, to 10 bits.

Shape legend: M sentences, D hidden width, I classifier width, 4I = [ga | gb | ua | ub].
"""

import torch

from . import language_matching_chunked, reference
from .checks import check_ids, check_matrix, check_reduction, check_same_device, check_shape
from .dispatch import choose

# The kernels keep one block of rows over the whole classifier width in registers.
MAX_TRITON_WIDTH = 512


def language_matching_loss(
    embeddings_MD: torch.Tensor,
    languages_M: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    *,
    reduction: str = "mean",
    impl: str | None = None,
) -> torch.Tensor:
    """Cross entropy of "do a and b share a language" over all M^2 ordered pairs (a, b), a = b included.

    embeddings_MD: [M, D] sentence embeddings, any strides; languages_M: [M] int32 or int64 labels; gate, up: [I, 2D] and
    down: [2, I], the weights of z = down(silu(gate [e_a ; e_b]) * (up [e_a ; e_b])). Floating-point tensors may differ in dtype;
    the computation is in fp32, or in fp64 if any of them is fp64. Returns that dtype: a scalar for "mean" (over pairs) and "sum",
    or [M] for "none": the sum over b for every a. Memory beyond inputs and gradients is O(M (D + I)), and gradients are
    deterministic, except with `impl="reference"`, which stores all pairs and computes in the widest dtype of its inputs.

    Raises: ValueError for a wrong shape, dtype or device, an unknown reduction, and an `impl` that cannot run.
    Source: AlignX (arXiv 2509.24338), L_lam.
    """
    for name, tensor in {"embeddings_MD": embeddings_MD, "gate": gate, "up": up, "down": down}.items():
        check_matrix(name, tensor)
    num_sentences, hidden = embeddings_MD.shape
    width = gate.shape[0]
    check_shape("gate", gate, (width, 2 * hidden), "[I, 2D]")
    check_shape("up", up, (width, 2 * hidden), "[I, 2D] like gate")
    check_shape("down", down, (2, width), "[2, I]")
    check_ids("languages_M", languages_M, num_sentences)
    check_reduction(reduction)
    check_same_device(embeddings_MD=embeddings_MD, languages_M=languages_M, gate=gate, up=up, down=down)
    if num_sentences == 0 or width == 0:
        raise ValueError(
            f"There are {num_sentences} sentences and a classifier of width {width}; at least one of each is needed."
        )
    impl = _choose(impl, width, embeddings_MD, gate, up, down)
    wide = torch.float64 if torch.float64 in {t.dtype for t in (embeddings_MD, gate, up, down)} else torch.float32
    with torch.autocast(embeddings_MD.device.type, enabled=False):
        if impl == "reference":
            return reference.language_matching_loss(embeddings_MD, languages_M, gate, up, down, reduction=reduction).to(wide)
        # [2, I, D] -> the rows for e_a, then the rows for e_b.
        halves = [weight.to(wide).unflatten(1, (2, hidden)).transpose(0, 1).flatten(0, 1) for weight in (gate, up)]
        projected_M4I = embeddings_MD.to(wide) @ torch.cat(halves).T
        weight_I = down[1].to(wide) - down[0].to(wide)
        loss_M = language_pairs(projected_M4I, weight_I, languages_M, impl)
        if reduction == "none":
            return loss_M
        return loss_M.sum() / num_sentences**2 if reduction == "mean" else loss_M.sum()


def _choose(impl: str | None, width: int, *tensors: torch.Tensor) -> str:
    chosen = choose(impl, *tensors)
    if chosen == "triton" and width > MAX_TRITON_WIDTH:
        if impl == "triton":
            raise ValueError(
                f"impl='triton' takes a classifier width I of at most {MAX_TRITON_WIDTH}, not {width}; pass impl=None."
            )
        return "chunked"
    return chosen


@torch.library.custom_op("alignx_kernels::language_pairs", mutates_args=())
def language_pairs(projected_M4I: torch.Tensor, weight_I: torch.Tensor, languages_M: torch.Tensor, impl: str) -> torch.Tensor:
    """Sum over b of loss_ab for every a: [M]."""
    return _implementation(impl).forward(projected_M4I.contiguous(), weight_I.contiguous(), languages_M.contiguous())


@torch.library.custom_op("alignx_kernels::language_pairs_backward", mutates_args=())
def language_pairs_backward(
    grad_M: torch.Tensor, projected_M4I: torch.Tensor, weight_I: torch.Tensor, languages_M: torch.Tensor, impl: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the projections, [M, 4I], and of the weights, [I].

    With x = ga + gb, v = ua + ub, and sums over the other half of a sentence's pairs: d gate = sum of dz w v silu'(x). The rest needs
    A = sum of dz silu(x) alone: d up = w A, and d w = the sum over sentences and halves of up A.
    """
    grad_M4I = _implementation(impl).backward(
        grad_M.contiguous(), projected_M4I.contiguous(), weight_I.contiguous(), languages_M.contiguous()
    )
    up = slice(2 * len(weight_I), None)
    grad_weight_2I = torch.linalg.vecdot(projected_M4I[:, up], grad_M4I[:, up], dim=0)
    grad_M4I[:, up] *= weight_I.repeat(2)
    return grad_M4I, grad_weight_2I.unflatten(0, (2, -1)).sum(0)


def _implementation(impl: str):
    if impl == "triton":
        from . import language_matching_triton

        return language_matching_triton
    return language_matching_chunked


@language_pairs.register_fake
def _(projected_M4I, weight_I, languages_M, impl):
    return projected_M4I.new_empty(projected_M4I.shape[0])


@language_pairs_backward.register_fake
def _(grad_M, projected_M4I, weight_I, languages_M, impl):
    return torch.empty_like(projected_M4I, memory_format=torch.contiguous_format), torch.empty_like(weight_I)


def _setup_context(ctx, inputs, output):
    *tensors, ctx.impl = inputs
    ctx.save_for_backward(*tensors)


def _backward(ctx, grad_M):
    return *language_pairs_backward(grad_M, *ctx.saved_tensors, ctx.impl), None, None


language_pairs.register_autograd(_backward, setup_context=_setup_context)
