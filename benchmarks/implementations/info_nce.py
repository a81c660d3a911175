"""InfoNCE: ours, torch in four forms, and the kernels of others with the settings that serve them best here.

Peers that expect unit vectors get `F.normalize` in front, inside autograd and inside the clock: it is part of the job. Peers with one
direction compute both as the mean of two calls. A peer's settings depart from its defaults only where the default is wrong for
InfoNCE or slower here, and the reason stands beside them. Kernels that take one dtype only stay out of problems under autocast.
"""

import importlib.util
import inspect
import os

import torch
import torch.nn.functional as F
from alignx_kernels import info_nce_loss
from torch import nn

from benchmarks.implementations import Run, implementation, needs_cuda
from benchmarks.problems import AUTOCAST, TEMPERATURE, InfoNce

Tensor = torch.Tensor


def in_directions(problem: InfoNce, one_way: Run) -> Run:
    """`one_way(left, right)` on unit vectors, as the mean of both directions where the problem asks for it."""

    def run(queries: Tensor, keys: Tensor) -> Tensor:
        left, right = F.normalize(queries, dim=1), F.normalize(keys, dim=1)
        if not problem.symmetric:
            return one_way(left, right)
        return (one_way(left, right) + one_way(right[: problem.n], left)) / 2

    return run


def numbers(count: Tensor) -> Tensor:
    return torch.arange(len(count), device=count.device)


# Ours.


@implementation("info_nce", "alignx", ours=True, limits=needs_cuda)
def alignx(problem: InfoNce) -> Run:
    return _ours(problem, "triton")


CHUNKED_ON_GPU = 2**36


def _chunked_limits(problem: InfoNce, device: torch.device) -> str | None:
    if device.type == "cuda" and problem.product > CHUNKED_ON_GPU:
        return "takes minutes that the others need: the chunked path is for CPUs, on GPUs it is measured up to 2^36 operations"
    return None


@implementation("info_nce", "alignx chunked", ours=True, limits=_chunked_limits)
def alignx_chunked(problem: InfoNce) -> Run:
    return _ours(problem, "chunked")


def _ours(problem: InfoNce, impl: str) -> Run:
    return lambda queries, keys: info_nce_loss(queries, keys, temperature=TEMPERATURE, symmetric=problem.symmetric, impl=impl)


# Torch.


@implementation("info_nce", "torch eager")
def eager(problem: InfoNce) -> Run:
    """The lines everybody writes; both directions share the similarities."""

    def run(queries: Tensor, keys: Tensor) -> Tensor:
        logits = F.normalize(queries, dim=1) @ F.normalize(keys, dim=1).T / TEMPERATURE
        loss = F.cross_entropy(logits.float(), numbers(queries))
        if problem.symmetric:
            loss = (loss + F.cross_entropy(logits[:, : problem.n].T.float(), numbers(queries))) / 2
        return loss

    return run


def _compiles(problem: InfoNce, device: torch.device) -> str | None:
    return None if device.type == "cuda" else "compiling takes longer than the whole benchmark does on a CPU"


@implementation("info_nce", "torch.compile", limits=_compiles)
def compiled(problem: InfoNce) -> Run:
    torch._dynamo.reset()  # otherwise the limit on recompilations is reached after a few problems
    return torch.compile(eager(problem), dynamic=False)


def _has_linear_cross_entropy(problem: InfoNce, device: torch.device) -> str | None:
    if not hasattr(F, "linear_cross_entropy"):
        return f"torch {torch.__version__} has no linear_cross_entropy (2.13 has)"
    return None


@implementation("info_nce", "torch linear_cross_entropy", limits=_has_linear_cross_entropy)
def linear_cross_entropy(problem: InfoNce) -> Run:
    """Gradients in the forward (3U); the loss comes back in the inputs' dtype."""
    return _linear_cross_entropy(problem, lambda loss: loss, "mean")


def _rounds_its_loss(problem: InfoNce, device: torch.device) -> str | None:
    return _has_linear_cross_entropy(problem, device) or (None if problem.dtype == "bf16" else "the loss is fp32 anyway")


@implementation("info_nce", "torch linear_cross_entropy, fp32 loss", limits=_rounds_its_loss)
def linear_cross_entropy_fp32(problem: InfoNce) -> Run:
    """Rows summed in fp32; the similarities are computed again in backward (4U)."""
    return _linear_cross_entropy(problem, lambda loss_N: loss_N.float().mean(), "none")


def _linear_cross_entropy(problem: InfoNce, reduce: Run, reduction: str) -> Run:
    options = torch.nn.LinearCrossEntropyOptions()

    def one_way(left: Tensor, right: Tensor) -> Tensor:
        return reduce(F.linear_cross_entropy(left / TEMPERATURE, right, numbers(left), reduction=reduction, options=options))

    return in_directions(problem, one_way)


# Kernels of others.

LIGER_CHUNK = 4096


@implementation("info_nce", "liger", packages=("liger-kernel",), limits=needs_cuda)
def liger(problem: InfoNce) -> Run:
    """Chunks of 4,096 rows, where its own report is fastest (its default is as many rows as D), and an fp32 sum for the keys."""
    from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy

    options = {"accum_dtype": torch.float32}
    if "chunk_mem_const" in inspect.signature(liger_fused_linear_cross_entropy).parameters:
        options["chunk_mem_const"] = max(1, LIGER_CHUNK // problem.d)

    def one_way(left: Tensor, right: Tensor) -> Tensor:
        return liger_fused_linear_cross_entropy(left / TEMPERATURE, right, numbers(left), **options)

    return in_directions(problem, one_way)


def _liger_sm90_limits(problem: InfoNce, device: torch.device) -> str | None:
    if problem.dtype != "bf16":
        return "takes bf16 only"
    if obstacle := needs_cuda(problem, device):
        return obstacle
    if torch.cuda.get_device_capability(device) != (9, 0):
        return "is written for compute capability 9.0"
    if importlib.util.find_spec("liger_kernel.ops.cutedsl") is None:
        return "this liger-kernel has no cutedsl kernels (0.8.2 and later have)"
    return None


@implementation("info_nce", "liger sm_90", packages=("liger-kernel", "nvidia-cutlass-dsl"), limits=_liger_sm90_limits)
def liger_sm90(problem: InfoNce) -> Run:
    """Its fused scaled cross entropy: no logits stored, the similarities computed again in backward. Without its check of the targets, which makes the host wait."""
    os.environ.setdefault("LIGER_SCALED_CE_SM90_VALIDATE_TARGETS", "0")
    from liger_kernel.ops.cutedsl.ops.fused_scaled_cross_entropy_sm90 import LigerFusedScaledCrossEntropySM90Function

    def one_way(left: Tensor, right: Tensor) -> Tensor:
        return LigerFusedScaledCrossEntropySM90Function.apply(left, right, numbers(left), TEMPERATURE).mean()

    return in_directions(problem, one_way)


QUACK_ROWS = 8


def _quack_limits(problem: InfoNce, device: torch.device) -> str | None:
    if problem.dtype not in ("bf16", AUTOCAST):
        return "multiplies in bf16 and fp16 only"
    if problem.n % QUACK_ROWS or problem.m % QUACK_ROWS or problem.d % QUACK_ROWS:
        return f"N, M and D must be multiples of {QUACK_ROWS}"
    if obstacle := needs_cuda(problem, device):
        return obstacle
    return None if torch.cuda.get_device_capability(device) >= (9, 0) else "needs compute capability 9.0 or later"


@implementation("info_nce", "quack", packages=("quack-kernels",), limits=_quack_limits)
def quack(problem: InfoNce) -> Run:
    """Its defaults: chunks of 4,096 rows; on Hopper, where M is a multiple of 128, exponentials stored with their scales beside them."""
    from quack.linear_cross_entropy import chunked_linear_cross_entropy

    def one_way(left: Tensor, right: Tensor) -> Tensor:
        return chunked_linear_cross_entropy(left / TEMPERATURE, right, numbers(left))

    return in_directions(problem, one_way)


def _cce_limits(problem: InfoNce, device: torch.device) -> str | None:
    return needs_cuda(problem, device) or (None if problem.dtype == "bf16" else "takes bf16 and fp16 only")


@implementation("info_nce", "cut-cross-entropy", packages=("cut-cross-entropy",), limits=_cce_limits)
def cut_cross_entropy(problem: InfoNce) -> Run:
    """Without its gradient filter, which drops probabilities of the size that InfoNCE has."""
    from cut_cross_entropy import linear_cross_entropy as cce

    def one_way(left: Tensor, right: Tensor) -> Tensor:
        return cce(left / TEMPERATURE, right, numbers(left), filter_eps=None, impl="cce")

    return in_directions(problem, one_way)


INF_CL_TILE, INF_CL_HEAD = 64, 256


def _inf_cl_limits(problem: InfoNce, device: torch.device) -> str | None:
    if problem.n % INF_CL_TILE or problem.m % INF_CL_TILE or problem.d % INF_CL_HEAD:
        return f"reads out of bounds unless N and M are multiples of {INF_CL_TILE}; D must be one of {INF_CL_HEAD}"
    return needs_cuda(problem, device)


@implementation("info_nce", "inf-cl", packages=("inf-cl",), limits=_inf_cl_limits)
def inf_cl(problem: InfoNce) -> Run:
    from inf_cl import cal_flash_loss

    def one_way(left: Tensor, right: Tensor) -> Tensor:
        return cal_flash_loss(left, right, scale=1 / TEMPERATURE, head_dim=INF_CL_HEAD).mean()

    return in_directions(problem, one_way)


def _memeff_limits(problem: InfoNce, device: torch.device) -> str | None:
    if not problem.symmetric or problem.n != problem.m:
        return "computes both directions of a square problem only"
    return needs_cuda(problem, device)


@implementation("info_nce", "memeff", packages=("memeff",), limits=_memeff_limits)
def memeff(problem: InfoNce) -> Run:
    """`stable=False`: its default returns gradients of another scale."""
    from memeff import MemoryEfficientCLIPLoss

    loss = MemoryEfficientCLIPLoss(temperature=TEMPERATURE, stable=False)
    return lambda queries, keys: loss(queries, keys)


CACHED_ROWS = 512


def _sentence_transformers_options(problem: InfoNce) -> dict:
    directions = ("query_to_doc", "doc_to_query") if problem.symmetric else ("query_to_doc",)
    return {"scale": 1 / TEMPERATURE, "directions": directions, "partition_mode": "per_direction"}


@implementation("info_nce", "sentence-transformers MNRL", packages=("sentence-transformers",))
def multiple_negatives(problem: InfoNce) -> Run:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    loss = MultipleNegativesRankingLoss(nn.Identity(), **_sentence_transformers_options(problem))
    return lambda queries, keys: loss.compute_loss_from_embeddings([queries, keys], None)


def _square(problem: InfoNce, device: torch.device) -> str | None:
    return None if problem.n == problem.m else "has as many keys as queries"


@implementation(
    "info_nce", "sentence-transformers cached MNRL", packages=("sentence-transformers",), limits=_square, does_backward=True
)
def cached_multiple_negatives(problem: InfoNce) -> Run:
    """Chunks of 512 rows: its default of 32, chosen for the encoder's memory, makes thin products."""
    from sentence_transformers.sentence_transformer.losses import CachedMultipleNegativesRankingLoss

    loss = CachedMultipleNegativesRankingLoss(
        nn.Sequential(nn.Identity()), mini_batch_size=CACHED_ROWS, **_sentence_transformers_options(problem)
    )

    def run(queries: Tensor, keys: Tensor) -> Tensor:
        return loss.calculate_loss([[queries], [keys]], with_backward=torch.is_grad_enabled())

    return run
