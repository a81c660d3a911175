"""One real step with random weights on the GPU: planned memory against measured, phase by phase."""

import gc
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from alignx_fast.config import AlignSettings, Settings, Stage
from alignx_fast.data.packing import PackedBatch, pack
from alignx_fast.data.spans import Example
from alignx_fast.errors import UserError
from alignx_fast.hardware import compute_dtype
from alignx_fast.memory import formulas
from alignx_fast.memory.plan import plan, process_bytes
from alignx_fast.memory.shapes import read_config
from alignx_fast.models.capture import causal_model
from alignx_fast.models.config import align_layer
from alignx_fast.models.forward import next_token_loss, packed_forward
from alignx_fast.models.heads import AlignmentHeads
from alignx_fast.models.random import random_model
from alignx_fast.training.objective import forward_pooled, matching_loss
from alignx_fast.training.step import AlignStep

MICRO_BATCHES = 2
"""Enough for cached gradients to be at work."""


@dataclass(frozen=True)
class Measured:
    """Most bytes that torch's allocator held in a phase, by plan and in fact."""

    phase: str
    planned: int
    measured: int

    @property
    def error(self) -> float:
        """Relative error of the plan."""
        return self.planned / self.measured - 1


def measure(settings: Settings, *, stage: Stage = "align") -> list[Measured]:
    """Run two steps of `MICRO_BATCHES` full micro-batches and measure the second.

    Raises:
        UserError: there is no CUDA GPU.
    """
    if not torch.cuda.is_available():
        raise UserError("Measuring needs a CUDA GPU; without one, leave --measure out for the plan alone.")
    device = torch.device("cuda", 0)
    settings = settings.model_copy(deep=True)
    group = getattr(settings, stage)
    before = _settled()
    if group.tokens_per_micro_batch == "auto":
        gpu_bytes = process_bytes(device) + formulas.CONTEXT_BYTES
        group.tokens_per_micro_batch = plan(settings, gpu_bytes=gpu_bytes, stage=stage).tokens
    config, _ = read_config(settings.model)
    batches = _batches(settings, group.tokens_per_micro_batch, config.get_text_config().vocab_size, device)
    rows = sum(len(batch.rows) for batch in batches)
    if stage == "align":
        settings.align.pairs_per_step = rows
    else:
        settings.instruct.rows_per_step = rows

    expected = formulas.phase_bytes(plan(settings, gpu_bytes=0, stage=stage).parts)
    kind = formulas.numbers(settings.model)
    model = random_model(config, settings.model, device, torch.float32 if kind.weight == 4 else compute_dtype()).train()
    step = _Step(model, settings, stage, align_layer(settings.model, config), device)
    step.run(batches)
    found = step.run(batches)
    return [Measured(phase, expected[phase], found[phase] - before) for phase in formulas.PHASES if phase in found]


class _Step:
    """The training step of `AlignStep` and `ntp_step`, with a reading of the allocator after every phase."""

    def __init__(self, model: nn.Module, settings: Settings, stage: Stage, layer: int, device: torch.device) -> None:
        self.model, self.layer = model, layer
        self.autocast = partial(torch.autocast, "cuda", dtype=compute_dtype())
        self.settings = settings.align if stage == "align" else None
        trained = [p for p in model.parameters() if p.requires_grad]
        self.align: AlignStep | None = None
        if self.settings is not None:
            width = causal_model(model).config.get_text_config().hidden_size
            heads = AlignmentHeads(width, self.settings).to(device)
            trained += [p for p in heads.parameters() if p.requires_grad]
            self.align = AlignStep(model, heads, self.settings, layer, self.autocast)
        self.optimizer = _optimizer(formulas.optimizer_name(settings.model, getattr(settings, stage)), trained)
        self.peaks: dict[str, int] = {}

    def run(self, batches: list[PackedBatch]) -> dict[str, int]:
        """Peak bytes by phase."""
        self.peaks = {}
        _settled()
        tokens = sum(batch.num_label_tokens for batch in batches)
        cached: list[Any] = [None] * len(batches)
        if self.align is not None and self.settings is not None:
            ctr, lam = _cached(self.settings)
            if ctr or lam:
                vectors = [self.align.forward_no_grad(batch, to_the_end=lam) for batch in batches]
                self._read("first_pass")
                cached = self.align.build_cache(batches, vectors, contrastive=ctr, matching=lam)[0]
                self._read("losses")
        for batch, gradient in zip(batches, cached, strict=True):
            loss = self._loss(batch, tokens, gradient)
            self._read("head")
            loss.backward()
            self._read("backward")
        self.optimizer.step()
        self._read("optimizer")
        self.optimizer.zero_grad(set_to_none=False)
        return self.peaks

    def _loss(self, batch: PackedBatch, tokens: int, gradient: Any) -> torch.Tensor:
        with self.autocast():
            if self.align is None or self.settings is None:
                return next_token_loss(self.model, packed_forward(self.model, batch), batch) / tokens
            hidden_TD, pooled = forward_pooled(self.model, batch, self.layer, matching=True)
            loss = next_token_loss(self.model, hidden_TD, batch) / tokens
            if gradient is not None:
                loss = loss + (pooled.sources_ND * gradient.sources_ND).sum() + (pooled.targets_ND * gradient.targets_ND).sum()
            return loss + matching_loss(pooled, self.align.heads, batch.languages)

    def _read(self, phase: str) -> None:
        torch.cuda.synchronize()
        self.peaks[phase] = max(self.peaks.get(phase, 0), torch.cuda.max_memory_allocated())
        torch.cuda.reset_peak_memory_stats()


def _cached(settings: AlignSettings) -> tuple[bool, bool]:
    ctr = bool(settings.contrastive.weight) and settings.contrastive.negatives == "step"
    return ctr, bool(settings.matching.weight) and settings.matching.scope == "step"


def _optimizer(name: str, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if name == "adamw":
        return torch.optim.AdamW(parameters, lr=1e-6, fused=True)
    import bitsandbytes as bnb

    kind = bnb.optim.PagedAdamW8bit if name == "paged_adamw_8bit" else bnb.optim.AdamW8bit
    return kind(parameters, lr=1e-6)


def _batches(settings: Settings, tokens: int, vocabulary: int, device: torch.device) -> list[PackedBatch]:
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
    return [batch.to(device) for batch in pack(rows, tokens, train_on_prompt=True)]


def _settled() -> int:
    """Bytes in use once everything that is not needed any more is gone."""
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    return torch.cuda.memory_allocated()
