"""From settings to a plan: components, the largest micro-batch that fits, and an estimate of the step's time."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import nn

from alignx_fast.config import Settings
from alignx_fast.losses.cost import COMPUTE, Part
from alignx_fast.memory import formulas, gpus, speed
from alignx_fast.memory.shapes import read_config
from alignx_fast.memory.sizes import Sizes, count, count_adapters
from alignx_fast.models.config import align_layer
from alignx_fast.stages import Stage

CPU_TOKENS = 4096
"""Tokens per micro-batch where there is no GPU to plan for."""
MOST_TOKENS = 16384
"""Larger micro-batches are no faster on any card."""
HEADROOM = 0.05
"""Share of the card that an automatic micro-batch leaves free: running out of memory costs a step, and halves what follows."""
GRAIN = 256
"""Micro-batches are planned in steps of this many tokens."""


@dataclass(frozen=True)
class Plan:
    """What one stage needs on one card; bytes, seconds, tokens."""

    model: str
    origin: str
    """Where the architecture is from: "config", "published figures" or "settings"."""
    parameters: int
    trained: int
    stage: Stage
    gpu: gpus.Gpu
    """The card that the estimate of time is for."""
    gpu_bytes: int
    tokens: int
    """Tokens per micro-batch that the components are for: as set, or with auto the largest that fits."""
    largest: int | None
    """The largest micro-batch that fits with `HEADROOM`, at most `MOST_TOKENS`; None where not even one row does."""
    parts: list[Part]
    cpu_bytes: int
    """Checkpoints in CPU memory."""
    rows_per_step: int
    step_tokens: int
    """At an assumed length of `speed.TOKENS_PER_ROW` tokens per row."""
    step_seconds: float
    processes: int = 1
    """GPUs that share a step, each with the whole model."""

    @property
    def exchanged(self) -> int:
        """Bytes that each of several processes sends in a step: gradients in fp32, twice over but for its own part (ring all-reduce)."""
        return round(2 * (self.processes - 1) / self.processes * 4 * self.trained)

    @property
    def peak_phase(self) -> str:
        """The phase that needs most."""
        return formulas.peak(self.parts)[0]

    @property
    def allocated(self) -> int:
        """Peak of torch's allocator."""
        return formulas.peak(self.parts)[1]

    @property
    def slack(self) -> int:
        """Planned loss to fragments."""
        return round(formulas.SLACK * (self.allocated - formulas.resident_bytes(self.parts)))

    @property
    def total(self) -> int:
        """The allocator's peak, fragments and the CUDA context."""
        return self.allocated + self.slack + formulas.CONTEXT_BYTES

    @property
    def fits(self) -> bool:
        """Whether it fits at `tokens` per micro-batch."""
        return self.total <= self.gpu_bytes


def plan(settings: Settings, *, gpu_bytes: int, stage: Stage = "align", gpu_name: str = "", processes: int = 1) -> Plan:
    """Plan a stage for a card of `gpu_bytes`; needs neither GPU nor weights. `gpu_name` picks the card's speed where it is known.

    Several processes, each on such a card, share the tokens of a step; each holds what one alone does.

    Raises:
        UserError: the model's configuration cannot be read.
    """
    config, origin = read_config(settings.model)
    sizes = count(config)
    adapters = () if settings.model.tuning == "full" else count_adapters(config, settings.model.lora)
    group = settings.stage(stage)
    rows = group.step_rows
    step_tokens = speed.step_tokens(group, settings.data.max_length)
    most = min(MOST_TOKENS, _round_up(rows * settings.data.max_length))

    def at(tokens: int) -> Plan:
        micro_batches = max(processes, -(-step_tokens // tokens))
        passes = speed.body_passes(
            settings.model,
            group,
            layers=sizes.layers,
            align_layer=align_layer(settings.model, config),
            micro_batches=micro_batches,
        )
        trained = sum(adapters) or sizes.total
        gpu = gpus.representative(gpu_bytes, gpu_name)
        return Plan(
            model=settings.model.path,
            origin=origin,
            parameters=sizes.total,
            trained=trained,
            stage=stage,
            gpu=gpu,
            gpu_bytes=gpu_bytes,
            tokens=tokens,
            largest=None,
            parts=formulas.parts(sizes, adapters, settings.model, group, tokens=tokens, max_length=settings.data.max_length),
            cpu_bytes=_offloaded(sizes, settings, tokens),
            rows_per_step=rows,
            step_tokens=step_tokens,
            step_seconds=speed.step_seconds(
                sizes,
                settings.model,
                gpu,
                tokens=step_tokens / processes,
                passes=passes,
                micro_batches=-(-micro_batches // processes),
                trained=trained,
            ),
            processes=processes,
        )

    # A row longer than the budget is a micro-batch of its own, so nothing below the longest row saves memory.
    least = settings.data.max_length
    largest = _largest(at, least, most)
    asked = group.tokens_per_micro_batch
    chosen = max(least, asked) if asked != "auto" else largest or least
    return replace(at(chosen), largest=largest)


def auto_tokens_per_micro_batch(settings: Settings, model: nn.Module, stage: Stage) -> int:
    """The largest micro-batch that the plan allows in the memory that `model`'s device has for this process.

    On a CPU a constant. Never fewer tokens than the longest row: where that does not fit, the step itself will say so.
    """
    device = next(model.parameters()).device
    if device.type != "cuda":
        return CPU_TOKENS
    available = process_bytes(device) + formulas.CONTEXT_BYTES
    return plan(settings, gpu_bytes=available, stage=stage).largest or settings.data.max_length


def process_bytes(device: torch.device) -> int:
    """Bytes that torch's allocator may hold in all: what it has, what is free, and no more than the share allowed to the process."""
    free, total = torch.cuda.mem_get_info(device)
    allowed = torch.cuda.get_per_process_memory_fraction(device) * total
    return int(min(free + torch.cuda.memory_reserved(device), allowed))


def card_bytes() -> int:
    """Memory of the GPU in use, or the share of it that the process is allowed."""
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return int(torch.cuda.get_per_process_memory_fraction() * total)


def _largest(at: Callable[[int], Plan], least: int, most: int) -> int | None:
    """The largest number of tokens that fits, by bisection: memory rises with tokens."""

    def fits(tokens: int) -> bool:
        planned = at(tokens)
        return planned.total <= (1 - HEADROOM) * planned.gpu_bytes

    if not fits(least):
        return None
    low, high = least // GRAIN, max(most, least) // GRAIN
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if fits(middle * GRAIN) else (low, middle - 1)
    return max(least, low * GRAIN)


def _offloaded(sizes: Sizes, settings: Settings, tokens: int) -> int:
    every = int(settings.model.gradient_checkpointing)
    if not (every and settings.model.offload_checkpoints):
        return 0
    residual = 4 if formulas.numbers(settings.model).autocast else COMPUTE
    return -(-sizes.layers // every) * tokens * sizes.width * residual


def _round_up(tokens: int) -> int:
    return -(-tokens // GRAIN) * GRAIN
