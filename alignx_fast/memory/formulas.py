"""Bytes on the GPU by component and phase of a step.

The phases of one optimizer step, of which the hungriest decides:

    first_pass   sentence vectors of every micro-batch, without a graph
    losses       the losses that are taken over the vectors of the whole step
    head         the end of a micro-batch's forward pass: everything kept for backward, and a chunk of logits
    backward     the same without logits, and one decoder layer with all of its activations and gradients
    optimizer    the update

Activations are counted from what autograd saves for backward in the layers of the Llama family; `tests/memory` compares these counts
with real ones. A GPU is assumed, with bf16 products. Letters: T tokens of a micro-batch, D width, I inner width, V vocabulary,
N pairs of a step, M = 2N sentences.
"""

from dataclasses import dataclass, replace

from alignx_fast.config import ModelSettings, StageSettings
from alignx_fast.losses.build import stage_losses
from alignx_fast.losses.cost import COMPUTE, GRAPH, PHASES, Part, PlanInput, optimizer_bytes
from alignx_fast.memory.sizes import Sizes

CONTEXT_BYTES = 768 << 20
"""CUDA context, libraries' workspaces and what the driver keeps of a card; outside of torch's allocator."""
SLACK = 0.08
"""Share of the peak's temporary memory that the allocator loses to fragments."""


@dataclass(frozen=True)
class Numbers:
    """How values are stored."""

    weight: int
    """Bytes of a weight that is not quantised."""
    quantised: bool
    full: bool
    """All weights are trained, not adapters."""

    @property
    def autocast(self) -> bool:
        """Weights are cast to bf16 for every product, and the residual stream stays in fp32."""
        return self.weight == 4


def numbers(model: ModelSettings) -> Numbers:
    """Storage on a GPU with bf16, whatever this machine has."""
    full = model.tuning == "full"
    wide = model.dtype == "float32" or (model.dtype == "auto" and full)
    return Numbers(weight=4 if wide else COMPUTE, quantised=model.tuning == "qlora", full=full)


def parts(
    sizes: Sizes,
    adapters: tuple[int, ...],
    model: ModelSettings,
    stage: StageSettings,
    *,
    tokens: int,
    max_length: int,
) -> list[Part]:
    """All components for micro-batches of T = `tokens`; `adapters` are the values of the adapter tensors."""
    kind = numbers(model)
    optimizer = stage.optimizer_name(model.tuning, on_gpu=True)
    components = _weights(sizes, kind)
    trained = sizes.parameters if kind.full else adapters
    if not kind.full:
        components.append(Part("adapters (fp32)", 4 * sum(adapters)))
    components.append(Part("gradients", (kind.weight if kind.full else 4) * sum(trained)))
    # Moments have the format of the weights; adapters are in fp32.
    moments = optimizer_bytes(trained, optimizer, kind.weight if kind.full else 4)
    if kind.full and optimizer != "adamw":
        moments += 8 * sum(sizes.embeddings) - optimizer_bytes(sizes.embeddings, optimizer, 4)  # kept in fp32 by the Trainer
    components.append(Part(f"optimizer ({optimizer})", moments))
    residual = 4 if kind.autocast else COMPUTE
    components += _losses(stage, PlanInput(sizes, tokens, stage.step_rows, optimizer, residual, kind.autocast, kind.full))
    components += _activations(sizes, kind, model, tokens, max_length)
    return [part for part in components if part.bytes]


def peak(components: list[Part]) -> tuple[str, int]:
    """The hungriest phase, and the bytes that torch's allocator then holds."""
    by_phase = phase_bytes(components)
    phase = max(by_phase, key=lambda name: by_phase[name])
    return phase, by_phase[phase]


def phase_bytes(components: list[Part]) -> dict[str, int]:
    """Bytes held in every phase."""
    return {phase: sum(part.bytes for part in components if phase in part.phases) for phase in PHASES}


def resident_bytes(components: list[Part]) -> int:
    """Bytes held all the time."""
    return sum(part.bytes for part in components if part.phases == PHASES)


# Weights and their training.


def _weights(sizes: Sizes, kind: Numbers) -> list[Part]:
    name = "fp32" if kind.weight == 4 else "bf16"
    ends = Part(f"embeddings and head ({name})", kind.weight * sizes.embeddings_and_head)
    rest = sizes.total - sizes.embeddings_and_head
    if not kind.quantised:
        return [Part(f"weights ({name})", kind.weight * rest), ends]
    small = kind.weight * (rest - sizes.quantised)
    return [
        Part("weights (NF4)", sum(-(-n // 2) for n in sizes.linear) + small),
        Part("quantisation scales", sum(quantisation_scales(n) for n in sizes.linear)),
        ends,
    ]


def quantisation_scales(weights: int) -> int:
    """Bytes beside the 4-bit values of one matrix: 8-bit scales per 64 values, their fp32 scales per 256, and three small tables."""
    blocks = -(-weights // 64)
    return blocks + 4 * (-(-blocks // 256)) + 4 * (1 + 16 + 256)


def _losses(stage: StageSettings, plan: PlanInput) -> list[Part]:
    """What the losses of a stage say they need, lines of one name added up; without a weighted one, next-token prediction alone."""
    groups = [loss for loss in stage_losses(stage) if loss.weight or stage.has_losses]
    merged: dict[tuple[str, tuple[str, ...]], Part] = {}
    for part in (part for group in groups for part in group.memory(plan)):
        same = merged.get((part.name, part.phases))
        merged[part.name, part.phases] = replace(part, bytes=part.bytes + same.bytes) if same else part
    return list(merged.values())


# Activations.


def _activations(sizes: Sizes, kind: Numbers, model: ModelSettings, tokens: int, max_length: int) -> list[Part]:
    every = int(model.gradient_checkpointing)
    layers = sizes.layers
    recomputed = -(-layers // every) if every else 0
    residual = 4 if kind.autocast else COMPUTE
    lora_copies = not kind.full and not kind.quantised
    saved = tokens * _saved_per_token(sizes, kind, model) + _scores(sizes, tokens, max_length, saved=True)
    largest = max(sizes.linear)

    # What one layer's backward holds only while it runs.
    transient_per_token = COMPUTE * sizes.inner * (1 if sizes.fused_layers else 3) + sizes.width * (2 * residual + 2 * COMPUTE)
    transient_per_token += (4 + COMPUTE) * sizes.inner if lora_copies else 0
    transient = tokens * transient_per_token + _scores(sizes, tokens, max_length, saved=False)
    if kind.quantised:
        transient += COMPUTE * largest + 4 * largest // 64
    if kind.full:
        transient += (COMPUTE + 4 if kind.autocast else COMPUTE) * largest
    layer_copies = COMPUTE * sizes.quantised // layers if kind.full and kind.autocast else 0

    forward_per_token = sizes.width * (2 * residual + COMPUTE) + sizes.inner * (COMPUTE * 3 + (4 if lora_copies else 0))
    first = tokens * forward_per_token + _scores(sizes, tokens, max_length, saved=False)
    first += COMPUTE * largest if kind.quantised else 0

    components = [
        Part("activation checkpoints", 0 if model.offload_checkpoints else recomputed * tokens * sizes.width * residual, GRAPH),
        Part("activations kept", (layers - recomputed) * saved, GRAPH),
        Part("one layer's workspace", transient + (saved + layer_copies if recomputed else 0), ("backward",)),
        Part("one layer's forward", first, ("first_pass",)),
    ]
    if kind.full and kind.autocast:
        held = ("first_pass", *GRAPH) if recomputed < layers else ("first_pass", "head")
        components.append(Part("bf16 copies of the weights", COMPUTE * sizes.quantised, held))
    return components


def _saved_per_token(sizes: Sizes, kind: Numbers, model: ModelSettings) -> int:
    """Bytes per token that autograd keeps of one decoder layer."""
    residual = 4 if kind.autocast else COMPUTE
    # Taken in fp32 where not fused; a trained norm then also keeps what it scales.
    norms = sizes.norms * (residual if sizes.fused_layers else 4 + (residual if kind.full else 0))
    # Queries, keys, values, output, and a log-sum per head.
    attention = COMPUTE * (2 * sizes.attention + sizes.keys_values) + 4 * sizes.heads
    if not kind.full and not kind.quantised:
        # peft casts the input of every adapter up, autocast casts each down again: one copy per layer.
        inputs = COMPUTE * sizes.inputs
    elif kind.autocast:
        inputs = COMPUTE * (sizes.inputs - sizes.attention)
    else:
        inputs = COMPUTE * (2 * sizes.width + sizes.inner)
    if not kind.full and model.lora.dropout:
        inputs += (1 + (COMPUTE if kind.quantised else 0)) * sizes.inputs  # masks, and inputs no longer shared
    mlp = COMPUTE * sizes.inner * ((2 if sizes.fused_layers else 3) if sizes.gated else 1)
    return norms + attention + inputs + mlp + (2 * sizes.width if sizes.dropout else 0)


def _scores(sizes: Sizes, tokens: int, max_length: int, *, saved: bool) -> int:
    """Stored attention scores: 10 bytes each kept (two bf16, one fp32, masks), 8 more while they are worked out."""
    each = 10 if saved else 8
    if not sizes.packed_attention:
        return each * sizes.heads * tokens * tokens
    return each * sizes.heads * tokens * max_length if sizes.softcap else 0
