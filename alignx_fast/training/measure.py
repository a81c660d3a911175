"""Two real optimizer steps with random weights on the GPU, the second measured: memory against the plan, and time, phase by phase."""

import gc
import time
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn

from alignx_fast.config import Settings
from alignx_fast.data.packing import PackedBatch, pack
from alignx_fast.data.spans import Example
from alignx_fast.errors import UserError
from alignx_fast.hardware import compute_dtype, on_gpu
from alignx_fast.hardware import device as hardware_device
from alignx_fast.losses.build import build_losses, model_shape
from alignx_fast.losses.cost import PHASES
from alignx_fast.memory import formulas
from alignx_fast.memory.plan import plan, process_bytes
from alignx_fast.memory.shapes import read_config
from alignx_fast.models.config import align_layer
from alignx_fast.models.random import random_model
from alignx_fast.stages import Stage
from alignx_fast.training.step import AlignStep

MICRO_BATCHES = 2
"""Enough for cached gradients to be at work."""
OPENING_TOKEN = 1
"""Any token will do: the weights are random."""


@dataclass(frozen=True)
class MeasuredPhase:
    """A phase of one step: most bytes that torch's allocator held in it, by plan and in fact, and its seconds."""

    phase: str
    planned: int
    measured: int
    seconds: float

    @property
    def error(self) -> float:
        """Relative error of the planned bytes."""
        return self.planned / self.measured - 1


@dataclass(frozen=True)
class MeasuredStep:
    """One optimizer step of so many tokens."""

    phases: list[MeasuredPhase]
    tokens: int

    @property
    def seconds(self) -> float:
        """The whole step; the phases wait for each other, so a real step is a little faster."""
        return sum(phase.seconds for phase in self.phases)


def measure(settings: Settings, *, stage: Stage = "align") -> MeasuredStep:
    """Run two steps of `MICRO_BATCHES` full micro-batches and measure the second.

    Raises:
        UserError: there is no CUDA GPU.
    """
    if not on_gpu():
        raise UserError("Measuring needs a CUDA GPU; without one, leave --measure out for the plan alone.")
    device = hardware_device()
    settings = settings.model_copy(deep=True)
    group = settings.stage(stage)
    before = _settled()
    if group.tokens_per_micro_batch == "auto":
        gpu_bytes = process_bytes(device) + formulas.CONTEXT_BYTES
        group.tokens_per_micro_batch = plan(settings, gpu_bytes=gpu_bytes, stage=stage).tokens
    config, _ = read_config(settings.model)
    batches = _batches(settings, group.tokens_per_micro_batch, config.get_text_config().vocab_size)
    rows = sum(len(batch.rows) for batch in batches)
    if stage == "align":
        settings.align.pairs_per_step = rows
    else:
        settings.instruct.rows_per_step = rows

    expected = formulas.phase_bytes(plan(settings, gpu_bytes=0, stage=stage).parts)
    kind = formulas.numbers(settings.model)
    model = random_model(config, settings.model, device, torch.float32 if kind.weight == 4 else compute_dtype()).train()
    losses = [
        loss.to(device)
        for loss in build_losses(group, model_shape(model, align_layer(settings.model, config)), seed=settings.seed)
    ]
    readings = _Readings()
    autocast = partial(torch.autocast, "cuda", dtype=compute_dtype())
    step = AlignStep(model, losses, autocast=autocast, opening_token=OPENING_TOKEN, on_phase=readings)
    trained = [p for module in (model, *losses) for p in module.parameters() if p.requires_grad]
    optimizer = _optimizer(group.optimizer_name(settings.model.tuning, on_gpu=True), trained)
    for _ in range(2):
        _settled()
        readings.restart()
        step(batches, torch.Tensor.backward)
        optimizer.step()
        readings("optimizer")
        optimizer.zero_grad(set_to_none=False)
    phases = [
        MeasuredPhase(phase, expected[phase], readings.bytes[phase] - before, readings.seconds[phase])
        for phase in PHASES
        if phase in readings.bytes
    ]
    return MeasuredStep(phases, sum(batch.num_tokens for batch in batches))


@dataclass
class _Readings:
    """Called at the end of every phase: the allocator's peak since the last call, and the seconds."""

    bytes: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    since: float = 0.0

    def restart(self) -> None:
        self.bytes, self.seconds, self.since = {}, {}, time.perf_counter()

    def __call__(self, phase: str) -> None:
        torch.cuda.synchronize()
        now = time.perf_counter()
        self.bytes[phase] = max(self.bytes.get(phase, 0), torch.cuda.max_memory_allocated())
        self.seconds[phase] = self.seconds.get(phase, 0.0) + now - self.since
        torch.cuda.reset_peak_memory_stats()
        self.since = now


def _optimizer(name: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=1e-6, fused=True)
    from bitsandbytes.optim.adamw import AdamW8bit, PagedAdamW8bit

    return (PagedAdamW8bit if name == "paged_adamw_8bit" else AdamW8bit)(parameters, lr=1e-6)


def _batches(settings: Settings, tokens: int, vocabulary: int) -> list[PackedBatch]:
    """Full micro-batches of random rows: a third prompt, a third source, a third target."""
    length = min(settings.data.max_length, tokens)
    generator = torch.Generator().manual_seed(0)
    third = length // 3
    rows = [
        Example(
            input_ids=torch.randint(3, vocabulary, (length,), generator=generator).tolist(),
            prompt_length=2 * third,
            source=[third, 2 * third],
            target=[2 * third, length - 1],
            src_lang=0,
            tgt_lang=1,
            meaning=row,
        )
        for row in range(MICRO_BATCHES * (tokens // length))
    ]
    return pack(rows, tokens, train_on_prompt=True)


def _settled() -> int:
    """Bytes in use once everything that is not needed any more is gone."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()
