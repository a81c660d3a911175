"""Cosine InfoNCE over many negatives: the public function, its operators and its autograd.

The path of a call: `info_nce_loss`, `InfoNCE.forward`, `forward_pass`, then `launch.forward` and its kernels, or `chunked.forward`.

Shape legend: N queries, M keys (M >= N), D hidden width.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from torch.autograd.function import once_differentiable

from ..common import checks
from ..common.autograd import Context
from ..common.dispatch import choose_implementation
from ..common.private_apis import dispatcher_must_see, refuse_second_derivative
from . import chunked, reference, tiles
from .problem import (
    ForwardResult,
    Inputs,
    Options,
    Statistics,
    Wanted,
    accumulator_dtype,
    reduce_loss,
    saved_gradient_dtype,
)

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

# What the operators take: queries, keys, temperature, ids of queries and keys, and the fields of `Options`.
OperatorInputs = tuple[
    torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor | None, torch.Tensor | None, bool, str, Sequence[bool], str
]
# At queries, keys and temperature; None where not wanted.
InputGradients = tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]


def info_nce_loss(
    queries_ND: torch.Tensor,
    keys_MD: torch.Tensor,
    *,
    temperature: float | torch.Tensor = 0.1,
    symmetric: bool = False,
    query_ids: torch.Tensor | None = None,
    key_ids: torch.Tensor | None = None,
    reduction: str = "mean",
    gather: "str | ProcessGroup | None" = None,
    impl: str | None = None,
) -> torch.Tensor:
    """Cross entropy of each query against all keys under cosine / temperature; key i is the positive of query i.

    queries_ND [N, D] and keys_MD [M, D], M >= N, share a dtype and a device; keys N and later are negatives only. Sums run in
    fp32 (fp64 for fp64), and so is the loss: a scalar for reduction "mean" or "sum", [N] for "none". Vectors need not be
    normalised; a zero vector has cosine 0 with everything and gradient 0. No N x M matrix is stored, nothing is spent on the
    gradient of an input that does not require one, and results repeat bit for bit.

    temperature: a positive number, or a tensor of one element, which receives its gradient. A tensor on a GPU is never read by the
        host: there one that is not positive or not finite gives a loss of NaN.
    symmetric: mean of the loss above and that of keys 0 .. N-1 against all queries.
    query_ids [N], key_ids [M]: integers. Where query_ids[i] == key_ids[j], i != j, key j is no negative of query i, nor i of j.
    Under autocast Triton's kernels take fp32 vectors in the autocast dtype; elsewhere they multiply fp32 as exactly as
        `torch.set_float32_matmul_precision` asks.
    gather: "process_group" (the default one) or a group of torch.distributed: the loss of one process that holds the rows of all, over the
        queries of all under "mean" and "sum", of the own queries under "none". N and M may differ between processes, and N be 0. All
        must call this and its backward. Gradients are those of the sum, over the processes, of what each calls `backward` on. With "mean"
        and "sum" that is R times the loss for R processes: averaged over the processes, as DistributedDataParallel and FSDP do, gradients
        are those of one process; summed, R times as large. With "none", `R * loss.sum()` in each gives the averages those of the sum of
        all rows. The host reads row counts; CUDA graphs and fullgraph compilation are refused.
    impl: "reference", "chunked", "triton", or None for the best available: Triton on CUDA, chunked elsewhere and in fp64.

    Raises: ValueError for wrong shapes, dtypes, devices or options.
    Source: arXiv 2509.24338, instruction contrastive learning; options beyond it are ours.
    """
    if gather is not None:
        from .gather import gathered_info_nce_loss  # it calls this function in turn

        gathered: torch.Tensor = gathered_info_nce_loss(
            queries_ND,
            keys_MD,
            gather=gather,
            temperature=temperature,
            symmetric=symmetric,
            query_ids=query_ids,
            key_ids=key_ids,
            reduction=reduction,
            impl=impl,
        )
        return gathered
    check_inputs(queries_ND, keys_MD, temperature, query_ids, key_ids, reduction)
    impl = choose_implementation(impl, queries_ND, keys_MD)
    if impl == "triton":
        queries_ND, keys_MD = in_autocast_dtype(queries_ND), in_autocast_dtype(keys_MD)
    loss: torch.Tensor
    if impl == "reference":
        if isinstance(temperature, torch.Tensor) and not dispatcher_must_see((temperature,)):
            checks.check_temperature_value(temperature)
        loss = reference.info_nce_loss(
            queries_ND,
            keys_MD,
            temperature=temperature,
            symmetric=symmetric,
            query_ids=query_ids,
            key_ids=key_ids,
            reduction=reduction,
        )
        return loss.to(accumulator_dtype(keys_MD.dtype))
    temperature = as_scalar(temperature, keys_MD)
    wanted = gradients_wanted(queries_ND, keys_MD, temperature)
    inputs = (queries_ND, keys_MD, temperature, query_ids, key_ids, symmetric, reduction, wanted, impl)
    if torch.compiler.is_compiling():  # torch.compile refuses an autograd.Function that is given one tensor twice (equal ids)
        loss, _ = forward_operator(*inputs)
    else:
        loss = InfoNCE.apply(*inputs)  # type: ignore[no-untyped-call]  # PyTorch leaves `apply` untyped
    return loss


def check_inputs(
    queries_ND: torch.Tensor,
    keys_MD: torch.Tensor,
    temperature: float | torch.Tensor,
    query_ids: torch.Tensor | None,
    key_ids: torch.Tensor | None,
    reduction: str,
    fewest: int = 1,
) -> None:
    """Refuse what no implementation can take, and fewer than `fewest` queries."""
    checks.check_matrix("queries_ND", queries_ND)
    checks.check_matrix("keys_MD", keys_MD)
    check_options(queries_ND.shape[0], keys_MD.shape[0], temperature, query_ids, key_ids, reduction, fewest)
    if queries_ND.shape[1] != keys_MD.shape[1]:
        shapes = f"queries_ND is {tuple(queries_ND.shape)} and keys_MD {tuple(keys_MD.shape)}"
        raise ValueError(f"{shapes}; their second sizes must be equal.")
    if queries_ND.dtype != keys_MD.dtype:
        raise ValueError(f"queries_ND is {queries_ND.dtype} and keys_MD {keys_MD.dtype}; cast one to the dtype of the other.")
    given = temperature if isinstance(temperature, torch.Tensor) else None
    checks.check_same_device(queries_ND=queries_ND, keys_MD=keys_MD, temperature=given, query_ids=query_ids, key_ids=key_ids)


def check_options(
    n: int,
    m: int,
    temperature: float | torch.Tensor,
    query_ids: torch.Tensor | None,
    key_ids: torch.Tensor | None,
    reduction: str,
    fewest: int = 1,
) -> None:
    """Refuse what no implementation can take, for n queries and m keys."""
    if n < fewest or m < n:
        raise ValueError(f"There are {n} queries and {m} keys; at least one query, and a key for every query, is needed.")
    if (query_ids is None) != (key_ids is None):
        raise ValueError("One of query_ids and key_ids is None; give both or neither.")
    if query_ids is not None and key_ids is not None:
        checks.check_ids("query_ids", query_ids, n)
        checks.check_ids("key_ids", key_ids, m)
    checks.check_temperature(temperature)
    checks.check_reduction(reduction)


def takes_autocast_dtype(vectors_XD: torch.Tensor) -> bool:
    """Whether autocast would have a product of such vectors run in another dtype."""
    return vectors_XD.dtype == torch.float32 and torch.is_autocast_enabled(vectors_XD.device.type)


def in_autocast_dtype(vectors_XD: torch.Tensor) -> torch.Tensor:
    """fp32 vectors in the dtype of products under autocast; else as they are. They get unit length first where that dtype is fp16.

    Many modules return fp32 under autocast. Only the loss in Triton's kernels takes them so: the chunked one computes in fp32 from any dtype.
    """
    if not takes_autocast_dtype(vectors_XD):
        return vectors_XD
    dtype = torch.get_autocast_dtype(vectors_XD.device.type)
    if dtype == torch.float16:
        vectors_XD = torch.nn.functional.normalize(vectors_XD, dim=1, eps=torch.finfo(torch.float32).tiny)
    return vectors_XD.to(dtype)


def as_scalar(temperature: float | torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """The temperature as a tensor of 0 dimensions on the device of `like`; its gradient flows on to the tensor given.

    On a GPU a tensor that is not positive becomes NaN; in CPU memory the operator refuses it.
    """
    if isinstance(temperature, torch.Tensor):
        temperature = temperature.reshape(()).to(accumulator_dtype(like.dtype))
        return (
            torch.where((temperature > 0) & (temperature < torch.inf), temperature, torch.nan)
            if temperature.is_cuda
            else temperature
        )
    return torch.full((), temperature, dtype=accumulator_dtype(like.dtype), device=like.device)


def gradients_wanted(queries: torch.Tensor, keys: torch.Tensor, temperature: torch.Tensor) -> Wanted:
    """The inputs whose gradients a backward will be asked for."""
    enabled = torch.is_grad_enabled()
    return Wanted(*(enabled and tensor.requires_grad for tensor in (queries, keys, temperature)))


def forward_pass(
    queries_ND: torch.Tensor,
    keys_MD: torch.Tensor,
    temperature: torch.Tensor,
    query_ids: torch.Tensor | None,
    key_ids: torch.Tensor | None,
    symmetric: bool,
    reduction: str,
    wanted: Sequence[bool],
    impl: str,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """The reduced loss, and `Options.saved`. Gradients among the latter are those under a cotangent of 1."""
    checks.check_temperature_value(temperature)
    options = Options(symmetric, reduction, Wanted(*wanted), impl)
    inputs = Inputs(queries_ND, keys_MD, temperature, query_ids, key_ids, symmetric)
    with _without_autocast(keys_MD.device.type):
        if impl == "triton":
            from . import launch  # not at the top of the file: machines without Triton import it too

            result = launch.forward(inputs, options)
        else:
            result = chunked.forward(inputs, options)
        return reduce_loss(result.loss_N, reduction), options.saved(result)


def backward_pass(
    queries_ND: torch.Tensor,
    keys_MD: torch.Tensor,
    temperature: torch.Tensor,
    query_ids: torch.Tensor | None,
    key_ids: torch.Tensor | None,
    statistics: list[torch.Tensor],
    cotangent_N: torch.Tensor,
    symmetric: bool,
    wanted: Sequence[bool],
    impl: str,
) -> list[torch.Tensor]:
    """Gradients of queries and keys as far as they are wanted, under a cotangent of every row.

    `statistics`: the fields of `Statistics` that are not None.
    """
    inputs = Inputs(queries_ND, keys_MD, temperature, query_ids, key_ids, symmetric)
    saved = Statistics.of(statistics, symmetric)
    with _without_autocast(keys_MD.device.type):
        if impl == "triton":
            from . import launch

            gradients = launch.backward(inputs, saved, cotangent_N, Wanted(*wanted))
        else:
            gradients = chunked.backward(inputs, saved, cotangent_N, Wanted(*wanted))
        return [gradient for gradient in gradients if gradient is not None]


def _without_autocast(device_type: str) -> AbstractContextManager[object]:
    """Autocast is disabled inside; entered only where it is on, because that takes the host as long as a launch."""
    return torch.autocast(device_type, enabled=False) if torch.is_autocast_enabled(device_type) else nullcontext()


# The same two functions as operators, for calls that the dispatcher must see.
forward_operator = torch.library.custom_op("alignx_kernels::info_nce_forward", forward_pass, mutates_args=())
backward_operator = torch.library.custom_op("alignx_kernels::info_nce_backward", backward_pass, mutates_args=())


@forward_operator.register_fake
def _(
    queries_ND: torch.Tensor,
    keys_MD: torch.Tensor,
    temperature: torch.Tensor,
    query_ids: torch.Tensor | None,
    key_ids: torch.Tensor | None,
    symmetric: bool,
    reduction: str,
    wanted: Sequence[bool],
    impl: str,
) -> tuple[torch.Tensor, list[torch.Tensor]]:
    options = Options(symmetric, reduction, Wanted(*wanted), impl)
    rows_N, rows_M = (side.new_empty(side.shape[0], dtype=accumulator_dtype(side.dtype)) for side in (queries_ND, keys_MD))
    statistics = Statistics(rows_N, rows_N.clone(), rows_M, rows_N.clone() if symmetric else None)
    if options.backward_computes_gradients and (kept_NX := _empty_kept(queries_ND, keys_MD, impl)) is not None:
        statistics = statistics._replace(positive_N=rows_N.clone(), kept_NX=kept_NX)
    result = ForwardResult(
        rows_N,
        rows_N.clone() if options.wanted.temperature else None,
        statistics,
        _empty_like(queries_ND, saved_gradient_dtype(queries_ND.dtype)) if options.wanted.queries else None,
        _empty_like(keys_MD, saved_gradient_dtype(keys_MD.dtype)) if options.wanted.keys else None,
    )
    return reduce_loss(rows_N, reduction).clone(), options.saved(result)


@backward_operator.register_fake
def _(
    queries_ND: torch.Tensor,
    keys_MD: torch.Tensor,
    temperature: torch.Tensor,
    query_ids: torch.Tensor | None,
    key_ids: torch.Tensor | None,
    statistics: list[torch.Tensor],
    cotangent_N: torch.Tensor,
    symmetric: bool,
    wanted: Sequence[bool],
    impl: str,
) -> list[torch.Tensor]:
    return [_empty_like(side, side.dtype) for side, want in zip((queries_ND, keys_MD), wanted, strict=False) if want]


def _empty_kept(queries_ND: torch.Tensor, keys_MD: torch.Tensor, impl: str) -> torch.Tensor | None:
    n, m, dtype = queries_ND.shape[0], keys_MD.shape[0], keys_MD.dtype
    if impl == "triton":
        return (
            keys_MD.new_empty(n, tiles.row_stride(m), dtype=tiles.stored_dtype(dtype)) if tiles.keeps_all(n, m, dtype) else None
        )
    return keys_MD.new_empty(n, m, dtype=accumulator_dtype(dtype)) if chunked.keeps_all(n, m) else None


def _empty_like(tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return torch.empty_like(tensor, dtype=dtype, memory_format=torch.contiguous_format)


class SavedContext(Context):
    """What `InfoNCE` hands from forward to backward."""

    options: Options
    num_saved: int
    dtype: torch.dtype


class InfoNCE(torch.autograd.Function):
    """Autograd of the loss: saves gradients where the forward computes them, else what the backward needs to do so."""

    @staticmethod
    def forward(ctx: SavedContext, *inputs: *OperatorInputs) -> torch.Tensor:
        loss, saved = forward_operator(*inputs) if dispatcher_must_see(inputs) else forward_pass(*inputs)
        InfoNCE.save(ctx, inputs, (loss, saved))
        return loss

    @staticmethod
    def save(ctx: SavedContext, inputs: OperatorInputs, output: tuple[torch.Tensor, list[torch.Tensor]]) -> None:
        queries_ND, keys_MD, temperature, query_ids, key_ids, symmetric, reduction, wanted, impl = inputs
        saved = output[1]
        ctx.mark_non_differentiable(*saved)
        ctx.set_materialize_grads(False)
        ctx.options = Options(symmetric, reduction, Wanted(*wanted), impl)
        ctx.num_saved, ctx.dtype = len(saved), queries_ND.dtype
        tensors = (queries_ND, keys_MD, temperature, query_ids, key_ids) if ctx.options.backward_computes_gradients else ()
        ctx.save_for_backward(*saved, *tensors)

    @staticmethod
    def backward(ctx: SavedContext, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        return refuse_second_derivative(InfoNCE.backward_once(ctx, *cotangents))

    @staticmethod
    @once_differentiable
    def backward_once(ctx: SavedContext, *cotangents: torch.Tensor | None) -> tuple[torch.Tensor | None, ...]:
        cotangent = cotangents[0]  # the operator has a second output, whose tensors are not differentiable
        if cotangent is None:
            return (None,) * 9
        saved = ctx.saved_tensors  # read once: activation checkpointing allows no second time
        gradients = input_gradients(ctx, cotangent, list(saved[: ctx.num_saved]), saved[ctx.num_saved :])
        return *gradients, None, None, None, None, None, None


# The same autograd for the operator itself, which `torch.compile` sees in place of `InfoNCE`.
forward_operator.register_autograd(InfoNCE.backward_once, setup_context=InfoNCE.save)


def input_gradients(
    ctx: SavedContext, cotangent: torch.Tensor, saved: list[torch.Tensor], tensors: Sequence[torch.Tensor]
) -> InputGradients:
    """Gradients at queries, keys and temperature from `Options.saved`.

    `tensors`: queries, keys, temperature and both ids, used only where the backward computes the gradients.
    """
    options = ctx.options
    grad_temperature = (saved.pop() * cotangent).sum() if options.wanted.temperature else None
    if options.backward_computes_gradients:
        queries_ND, keys_MD, temperature, query_ids, key_ids = tensors
        run = backward_operator if dispatcher_must_see((*tensors, cotangent)) else backward_pass
        of_vectors = run(
            queries_ND,
            keys_MD,
            temperature,
            query_ids,
            key_ids,
            saved,
            cotangent,
            options.symmetric,
            options.wanted,
            options.impl,
        )
    else:
        of_vectors = [(gradient * cotangent).to(ctx.dtype) for gradient in saved]
    remaining = iter(of_vectors)
    grad_queries = next(remaining) if options.wanted.queries else None
    grad_keys = next(remaining) if options.wanted.keys else None
    return grad_queries, grad_keys, grad_temperature
