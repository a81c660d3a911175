"""Pairwise language-matching loss without the pairs: the public function, the projection, the operators and their autograd.

gate [e_a ; e_b] = gate_1 e_a + gate_2 e_b, the same for up, and the loss needs z1 - z0 only:

    z_ab = sum_m w_m silu(ga_am + gb_bm) (ua_am + ub_bm)        w = down[1] - down[0]
    loss_ab = softplus(-z_ab) if a and b share a language, else softplus(z_ab)

so each sentence is projected once, by one library product, and only z_ab is computed pair by pair. PyTorch's own autograd carries the
gradients through the projection; the sums over pairs are one operator, with `LanguagePairs` as its autograd. The product is in fp32,
on a GPU at the precision of `torch.set_float32_matmul_precision`: with "high" it runs on tensor cores, in which embeddings and
weights in bf16 or fp16 are exact, and only gradients are rounded, to 10 bits.

Shape legend: M sentences, D hidden width, I classifier width, 4I = [ga | gb | ua | ub].
"""

import torch

from ..common.autograd import Context
from ..common.checks import check_ids, check_matrix, check_reduction, check_same_device, check_shape
from ..common.dispatch import choose_implementation
from . import chunked, reference
from .tiles import MAX_WIDTH


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
    _check(embeddings_MD, languages_M, gate, up, down, reduction)
    num_sentences, hidden = embeddings_MD.shape
    impl = _choose(impl, len(gate), embeddings_MD, gate, up, down)
    wide = torch.float64 if torch.float64 in {t.dtype for t in (embeddings_MD, gate, up, down)} else torch.float32
    with torch.autocast(embeddings_MD.device.type, enabled=False):
        if impl == "reference":
            return reference.language_matching_loss(embeddings_MD, languages_M, gate, up, down, reduction=reduction).to(wide)
        # [2, I, D] -> the rows for e_a, then the rows for e_b.
        halves = [torch.unflatten(weight.to(wide), 1, (2, hidden)).transpose(0, 1).flatten(0, 1) for weight in (gate, up)]
        projected_M4I = embeddings_MD.to(wide) @ torch.cat(halves).T
        weight_I = down[1].to(wide) - down[0].to(wide)
        loss_M = _language_pairs(projected_M4I, weight_I, languages_M, impl)
        if reduction == "none":
            return loss_M
        return loss_M.sum() / num_sentences**2 if reduction == "mean" else loss_M.sum()


def _check(
    embeddings_MD: torch.Tensor,
    languages_M: torch.Tensor,
    gate: torch.Tensor,
    up: torch.Tensor,
    down: torch.Tensor,
    reduction: str,
) -> None:
    """Refuse what no implementation can take."""
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


def _choose(impl: str | None, width: int, *tensors: torch.Tensor) -> str:
    chosen = choose_implementation(impl, *tensors)
    if chosen == "triton" and width > MAX_WIDTH:
        if impl == "triton":
            raise ValueError(f"impl='triton' takes a classifier width I of at most {MAX_WIDTH}, not {width}; pass impl=None.")
        return "chunked"
    return chosen


def _language_pairs(projected_M4I: torch.Tensor, weight_I: torch.Tensor, languages_M: torch.Tensor, impl: str) -> torch.Tensor:
    """Sum over b of loss_ab for every a, with its gradient: [M]."""
    loss_M: torch.Tensor
    if torch.compiler.is_compiling():
        loss_M = forward_operator(projected_M4I, weight_I, languages_M, impl)
    else:
        loss_M = LanguagePairs.apply(projected_M4I, weight_I, languages_M, impl)  # type: ignore[no-untyped-call]  # PyTorch leaves `apply` untyped
    return loss_M


@torch.library.custom_op("alignx_kernels::language_pairs", mutates_args=())
def forward_operator(projected_M4I: torch.Tensor, weight_I: torch.Tensor, languages_M: torch.Tensor, impl: str) -> torch.Tensor:
    """Sum over b of loss_ab for every a: [M]."""
    tensors = (projected_M4I.contiguous(), weight_I.contiguous(), languages_M.contiguous())
    if impl == "triton":
        from . import launch  # not at the top of the file: machines without Triton import it too

        return launch.forward(*tensors)
    return chunked.forward(*tensors)


@torch.library.custom_op("alignx_kernels::language_pairs_backward", mutates_args=())
def backward_operator(
    grad_M: torch.Tensor, projected_M4I: torch.Tensor, weight_I: torch.Tensor, languages_M: torch.Tensor, impl: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Gradients of the projections, [M, 4I], and of the weights, [I].

    With x = ga + gb, v = ua + ub, and sums over the other half of a sentence's pairs: d gate = sum of dz w v silu'(x). The rest needs
    A = sum of dz silu(x) alone: d up = w A, and d w = the sum over sentences and halves of up A.
    """
    tensors = (grad_M.contiguous(), projected_M4I.contiguous(), weight_I.contiguous(), languages_M.contiguous())
    if impl == "triton":
        from . import launch

        grad_M4I = launch.backward(*tensors)
    else:
        grad_M4I = chunked.backward(*tensors)
    up = slice(2 * len(weight_I), None)
    grad_weight_2I = torch.linalg.vecdot(projected_M4I[:, up], grad_M4I[:, up], dim=0)
    grad_M4I[:, up] *= weight_I.repeat(2)
    return grad_M4I, grad_weight_2I.unflatten(0, (2, -1)).sum(0)


@forward_operator.register_fake
def _(projected_M4I: torch.Tensor, weight_I: torch.Tensor, languages_M: torch.Tensor, impl: str) -> torch.Tensor:
    return projected_M4I.new_empty(projected_M4I.shape[0])


@backward_operator.register_fake
def _(
    grad_M: torch.Tensor, projected_M4I: torch.Tensor, weight_I: torch.Tensor, languages_M: torch.Tensor, impl: str
) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.empty_like(projected_M4I, memory_format=torch.contiguous_format), torch.empty_like(weight_I)


class _PairsContext(Context):
    impl: str


class LanguagePairs(torch.autograd.Function):
    """Autograd of the sums over pairs: keeps the projections and the weights, and never the pairs."""

    @staticmethod
    def forward(
        ctx: _PairsContext, projected_M4I: torch.Tensor, weight_I: torch.Tensor, languages_M: torch.Tensor, impl: str
    ) -> torch.Tensor:
        loss_M: torch.Tensor = forward_operator(projected_M4I, weight_I, languages_M, impl)
        LanguagePairs.save(ctx, (projected_M4I, weight_I, languages_M, impl), loss_M)
        return loss_M

    @staticmethod
    def save(ctx: _PairsContext, inputs: tuple[torch.Tensor, torch.Tensor, torch.Tensor, str], output: torch.Tensor) -> None:
        *tensors, ctx.impl = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: _PairsContext, *cotangents: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None, None]:
        (grad_M,) = cotangents
        projected_M4I, weight_I, languages_M = ctx.saved_tensors
        return *backward_operator(grad_M, projected_M4I, weight_I, languages_M, ctx.impl), None, None


# The same autograd for the operator itself, which `torch.compile` sees in place of `LanguagePairs`.
forward_operator.register_autograd(LanguagePairs.backward, setup_context=LanguagePairs.save)
