"""The processes that train one run together: what one does for all, what is exchanged, and how all of them end when one fails.

Every process holds the whole model and takes a share of each step's micro-batches. No process waits in vain for one that has failed: before
anything is exchanged they tell each other whether all went well, and one that fails tells them at the end of its block of `agreed` work. They do so
in a group of its own that may wait for weeks, so that the first process can evaluate for hours.
"""

import atexit
import os
import platform
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from enum import IntEnum
from functools import cache
from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import nn

from alignx_fast import process
from alignx_fast.errors import UserError
from alignx_fast.hardware import on_gpu
from alignx_fast.losses.base import Vectors
from alignx_fast.training.cache import concatenate

Result = TypeVar("Result")

LONGEST_WAIT = timedelta(days=28)
LAST_WAIT = timedelta(seconds=20)
"""How long a process that ends waits for the others, so that the launcher does not kill the one that is saying why."""
ENGINES = {
    "ACCELERATE_USE_FSDP": "FSDP",
    "ACCELERATE_USE_DEEPSPEED": "DeepSpeed",
    "ACCELERATE_USE_MEGATRON_LM": "Megatron-LM",
    "ACCELERATE_USE_PARALLELISM_CONFIG": "tensor, context or sequence parallelism",
}
"""What accelerate is told to use, by the variable of the environment that tells it."""
AGREED = "known to all processes"
"""Attribute of an exception that has been told to the other processes, or was raised because of one of theirs."""


class Outcome(IntEnum):
    """How a piece of work ended; the worst one decides for all processes."""

    FINE = 0
    OUT_OF_MEMORY = 1
    FAILED = 2


class OtherProcessError(UserError):
    """Another process has failed, and this is its message."""


class LostProcessError(UserError):
    """A process can no longer be reached."""


class Processes:
    """The processes of a run, this one among them; where it is alone, nothing is exchanged."""

    def __init__(self, rank: int = 0, count: int = 1, control: dist.ProcessGroup | None = None) -> None:
        self.rank, self.count, self.control = rank, count, control

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes."""
        return self.rank == 0

    def share(self, micro_batches: int) -> range:
        """The numbers of the micro-batches of a step that this process takes."""
        return range(self.rank, micro_batches, self.count)

    # Agreement.

    @contextmanager
    def agreed(self) -> Iterator[None]:
        """Work of every process: where it fails in one, it fails in all, at their next exchange or at the end of the block.

        Raises:
            torch.OutOfMemoryError: in all of them, where one or more ran out of memory and none failed otherwise.
            OtherProcessError: another process failed; the one that did raises its own exception.
            LostProcessError: a process has ended without a word.
        """
        try:
            yield
        except Exception as error:
            if self.count == 1 or AGREED in vars(error):
                raise
            if (others := self._exchange(error)[0]) is not None:
                raise others from None
            raise
        else:
            self._all_well()

    def _all_well(self) -> None:
        self.largest(0)

    def largest(self, value: int) -> int:
        """The largest of a number that each process has; raises what `agreed` does."""
        if self.count == 1:
            return value
        others, largest = self._exchange(None, value)
        if others is not None:
            raise others
        return largest

    def _exchange(self, error: Exception | None, value: int = 0) -> tuple[Exception | None, int]:
        """Tell the others how it went; returns what to raise because of one of them, and the largest of all values."""
        own = Outcome.FINE if error is None else Outcome.FAILED
        if isinstance(error, torch.OutOfMemoryError):
            own = Outcome.OUT_OF_MEMORY
        both = torch.tensor([own, value])
        with _reachable():
            dist.all_reduce(both, dist.ReduceOp.MAX, group=self.control)
        worst, texts = Outcome(int(both[0])), [""] * self.count
        if worst is Outcome.FAILED:
            with _reachable():
                dist.all_gather_object(texts, _described(error) if own is worst else "", group=self.control)
        if error is not None:
            vars(error)[AGREED] = True
        if own is worst:
            return None, int(both[1])
        others: Exception = torch.OutOfMemoryError("Another process ran out of memory.")
        if worst is Outcome.FAILED:
            others = OtherProcessError(next(f"Process {rank}: {text}" for rank, text in enumerate(texts) if text))
        vars(others)[AGREED] = True
        return others, 0

    def any(self, value: bool) -> bool:
        """Whether it is so in any process."""
        return bool(self.largest(int(value)))

    def first(self, work: Callable[[], Result]) -> Result:
        """What the first process does while the others wait; its result, which can be pickled, or its failure, is that of all."""
        results = [work() if self.count == 1 else None]
        if self.count > 1:
            with self.agreed():
                if self.is_first:
                    results = [work()]
            with _reachable():
                dist.broadcast_object_list(results, 0, group=self.control)
        return cast(Result, results[0])

    def each(self, value: Result) -> list[Result]:
        """A value, which can be pickled, of every process."""
        values = [value] * self.count
        if self.count > 1:
            self._all_well()
            with _reachable():
                dist.all_gather_object(values, value, group=self.control)
        return values

    # Tensors.

    def gather(self, own: Sequence[Vectors], sizes: Sequence[int]) -> list[Vectors]:
        """The vectors of every micro-batch of a step.

        Args:
            own: those of this process's micro-batches, which are every `count`-th from `rank` on; at least one.
            sizes: rows of every micro-batch of the step.
        """
        if self.count == 1:
            return list(own)
        by_rank = [list(sizes[rank :: self.count]) for rank in range(self.count)]
        rows = max(map(sum, by_rank))
        exchanges = [self._buffers(whole, rows) for whole in concatenate(own)]
        self._all_well()  # all of them have the memory for it
        with _reachable():
            for filled, received in exchanges:
                dist.all_gather(received, filled)
        parts = [
            [torch.split(whole[: sum(sizes)], sizes) for whole, sizes in zip(received, by_rank, strict=True)]
            for _, received in exchanges
        ]
        return [tuple(part[i % self.count][i // self.count] for part in parts) for i in range(len(sizes))]

    def _buffers(self, own_ND: torch.Tensor, rows: int) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """[N, D] filled up with zeros to `rows`, and room for that of every process."""
        filled_RD = own_ND.new_zeros(rows, *own_ND.shape[1:])
        filled_RD[: len(own_ND)] = own_ND
        return filled_RD, [torch.empty_like(filled_RD) for _ in range(self.count)]

    def sum(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace tensors by their sums over all processes."""
        if self.count == 1:
            return
        self._all_well()
        with _reachable():
            for work in [dist.all_reduce(tensor, async_op=True) for tensor in tensors]:
                work.wait()

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sum gradients in place; a parameter has one afterwards where it had one in any process."""
        if self.count == 1:
            return
        self._all_well()
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        used = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.uint8)
        with _reachable():
            dist.all_reduce(used, dist.ReduceOp.MAX, group=self.control)
        gradients = []
        for parameter, is_used in zip(trained, used.tolist(), strict=True):
            if is_used:
                parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
                gradients.append(parameter.grad)
        self.sum(gradients)

    def same(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace tensors by those of the first process."""
        if self.count > 1:
            self._all_well()
            with _reachable(), torch.no_grad():
                for tensor in tensors:
                    dist.broadcast(tensor.data, 0)


ALONE = Processes()


@cache
def join() -> Processes:
    """The processes that the launcher has started, once all of them are there; ALONE where this is the only one.

    Raises:
        UserError: they were to use an engine that is not supported, or there are fewer GPUs than processes.
    """
    refuse_engines()
    if process.count() == 1:
        return ALONE
    if on_gpu():
        gpus = torch.cuda.device_count()
        if process.local_count() > gpus:
            raise UserError(
                f"{platform.node()} has {gpus} GPUs for {process.local_count()} processes: give torchrun --nproc-per-node {gpus}."
            )
        torch.cuda.set_device(process.local_rank())
    if not dist.is_initialized():
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu() else "gloo")
    control = dist.new_group(backend="gloo", timeout=LONGEST_WAIT)
    atexit.register(_leave, control)
    return Processes(dist.get_rank(), dist.get_world_size(), control)


def refuse_engines() -> None:
    """Refuse the engines of accelerate that split a model.

    Raises:
        UserError: one is asked for.
    """
    for variable, engine in ENGINES.items():
        if os.environ.get(variable, "false").lower() in ("true", "1"):
            raise UserError(
                f"{engine} is not supported: every process holds the whole model. Start without it, as in `torchrun --nproc-per-node N "
                "-m alignx_fast train ...`; where the model is too large for that, `alignx-fast plan` names what to change."
            )


def _described(error: Exception | None) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def _leave(control: dist.ProcessGroup) -> None:
    """At the end of this process: wait a moment for the others, which may still have something to say."""
    with suppress(Exception):  # they may be gone already
        dist.barrier(control, async_op=True).wait(LAST_WAIT)
        dist.destroy_process_group()


@contextmanager
def _reachable() -> Iterator[None]:
    """An exchange that breaks off becomes one sentence."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        lost = LostProcessError(
            "Another process of this run has ended or cannot be reached, and what it printed says why; the same command with --resume goes on "
            "from the last checkpoint."
        )
        vars(lost)[AGREED] = True
        raise lost from error
