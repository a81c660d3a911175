"""Bytes on the GPU by component and phase of a step.

The phases of one optimizer step, of which the hungriest decides:

    first_pass   sentence vectors of every micro-batch, without a graph
    losses       contrastive and matching loss over the vectors of the step
    head         the end of a micro-batch's forward pass: everything kept for backward, and a chunk of logits
    backward     the same without logits, and one decoder layer with all of its activations and gradients
    optimizer    the update

Activations are counted from what autograd saves for backward in the layers of the Llama family; `tests/memory` compares these counts
with real ones. A GPU is assumed, with bf16 products. Letters: T tokens of a micro-batch, D width, I inner width, V vocabulary,
N pairs of a step, M = 2N sentences.
"""

from dataclasses import dataclass

from alignx_kernels.info_nce.tiles import CHUNK_BYTES

from alignx_fast.config import AlignSettings, InstructSettings, ModelSettings
from alignx_fast.memory.sizes import Sizes
from alignx_fast.models import forward
from alignx_fast.models.fused import rows_per_chunk

PHASES = ("first_pass", "losses", "head", "backward", "optimizer")
GRAPH = ("head", "backward")

CONTEXT_BYTES = 768 << 20
"""CUDA context, libraries' workspaces and what the driver keeps of a card; outside of torch's allocator."""
SLACK = 0.08
"""Share of the peak's temporary memory that the allocator loses to fragments."""

COMPUTE = 2
"""Bytes of a value in bf16."""


@dataclass(frozen=True)
class Part:
    """One line of the plan; without phases it is there all the time."""

    name: str
    bytes: int
    phases: tuple[str, ...] = PHASES


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
    stage: AlignSettings | InstructSettings,
    *,
    tokens: int,
    max_length: int,
) -> list[Part]:
    """All components for micro-batches of T = `tokens`; `adapters` are the values of the adapter tensors."""
    kind = numbers(model)
    optimizer = optimizer_name(model, stage)
    found = _weights(sizes, kind)
    trained = sizes.parameters if kind.full else adapters
    if not kind.full:
        found.append(Part("adapters (fp32)", 4 * sum(adapters)))
    found.append(Part("gradients", (kind.weight if kind.full else 4) * sum(trained)))
    # Moments have the format of the weights; adapters are in fp32.
    moments = optimizer_bytes(trained, optimizer, kind.weight if kind.full else 4)
    if kind.full and optimizer != "adamw":
        moments += 8 * sum(sizes.embeddings) - optimizer_bytes(sizes.embeddings, optimizer, 4)  # kept in fp32 by the Trainer
    found.append(Part(f"optimizer ({optimizer})", moments))
    if isinstance(stage, AlignSettings):
        found += _alignment(sizes, stage, optimizer)
    found += _activations(sizes, kind, model, tokens, max_length)
    return [part for part in found if part.bytes]


def peak(found: list[Part]) -> tuple[str, int]:
    """The hungriest phase, and the bytes that torch's allocator then holds."""
    by_phase = phase_bytes(found)
    phase = max(by_phase, key=lambda name: by_phase[name])
    return phase, by_phase[phase]


def phase_bytes(found: list[Part]) -> dict[str, int]:
    """Bytes held in every phase."""
    return {phase: sum(part.bytes for part in found if phase in part.phases) for phase in PHASES}


def resident_bytes(found: list[Part]) -> int:
    """Bytes held all the time."""
    return sum(part.bytes for part in found if part.phases == PHASES)


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


def optimizer_name(model: ModelSettings, stage: AlignSettings | InstructSettings) -> str:
    """What `auto` stands for on a GPU."""
    if stage.optimizer != "auto":
        return stage.optimizer
    return "paged_adamw_8bit" if model.tuning == "qlora" else "adamw"


def optimizer_bytes(tensors: tuple[int, ...], optimizer: str, value: int) -> int:
    """Two moments per value; the 8-bit optimizers keep tensors below 4,096 values in fp32, and two fp32 scales per 256 values."""
    if optimizer == "adamw":
        return 2 * value * sum(tensors)
    return sum(8 * n if n < 4096 else 2 * n + 8 * -(-n // 256) for n in tensors)


def _alignment(sizes: Sizes, stage: AlignSettings, optimizer: str) -> list[Part]:
    width, pairs = sizes.width, stage.pairs_per_step
    weights = (2 * stage.matching.width * width, 2 * stage.matching.width * width, 2 * stage.matching.width)
    found = [Part("matching classifier", 8 * sum(weights) + optimizer_bytes(weights, optimizer, 4))]
    if not (stage.contrastive.weight or stage.matching.weight):
        return []
    keys = pairs + stage.contrastive.queue_size
    found.append(Part("queue of targets", COMPUTE * width * stage.contrastive.queue_size))
    matched = 2 if stage.matching.scope == "step" and stage.matching.weight else 0
    if stage.contrastive.negatives == "step" or matched:
        # The vectors and their gradients: c, d and, over the whole step, e.
        found.append(Part("sentence vectors", 2 * COMPUTE * width * pairs * (2 + matched)))
        dlogits = min(max(CHUNK_BYTES.values()), COMPUTE * pairs * keys)
        projected = 2 * pairs * (4 * width + 3 * 4 * 4 * stage.matching.width) if matched else 0
        found.append(Part("loss kernels", dlogits + 8 * width * (pairs + keys) + projected, ("losses",)))
    return found


# Activations.


def _activations(sizes: Sizes, kind: Numbers, model: ModelSettings, tokens: int, max_length: int) -> list[Part]:
    every = int(model.gradient_checkpointing)
    layers = sizes.layers
    recomputed = -(-layers // every) if every else 0
    residual = 4 if kind.autocast else COMPUTE
    lora_copies = not kind.full and not kind.quantised
    saved = tokens * _saved_per_token(sizes, kind, model) + _scores(sizes, tokens, max_length, saved=True)
    largest = max(sizes.linear)

    # What one layer's backward needs for a moment.
    moment = COMPUTE * sizes.inner * (1 if sizes.fused_layers else 3) + sizes.width * (2 * residual + 2 * COMPUTE)
    moment += (4 + COMPUTE) * sizes.inner if lora_copies else 0
    transient = tokens * moment + _scores(sizes, tokens, max_length, saved=False)
    if kind.quantised:
        transient += COMPUTE * largest + 4 * largest // 64
    if kind.full:
        transient += (COMPUTE + 4 if kind.autocast else COMPUTE) * largest
    layer_copies = COMPUTE * sizes.quantised // layers if kind.full and kind.autocast else 0

    forward_moment = sizes.width * (2 * residual + COMPUTE) + sizes.inner * (COMPUTE * 3 + (4 if lora_copies else 0))
    first = tokens * forward_moment + _scores(sizes, tokens, max_length, saved=False)
    first += COMPUTE * largest if kind.quantised else 0

    found = [
        Part("activation checkpoints", 0 if model.offload_checkpoints else recomputed * tokens * sizes.width * residual, GRAPH),
        Part("activations kept", (layers - recomputed) * saved, GRAPH),
        Part("one layer's workspace", transient + (saved + layer_copies if recomputed else 0), ("backward",)),
        Part("one layer's forward", first, ("first_pass",)),
        *_head(sizes, kind, tokens, residual),
    ]
    if kind.full and kind.autocast:
        held = ("first_pass", *GRAPH) if recomputed < layers else ("first_pass", "head")
        found.append(Part("bf16 copies of the weights", COMPUTE * sizes.quantised, held))
    return found


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
    """Stored attention scores: 10 bytes each kept (two bf16, one fp32, masks), 8 more for a moment."""
    each = 10 if saved else 8
    if not sizes.packed_attention:
        return each * sizes.heads * tokens * tokens
    return each * sizes.heads * tokens * max_length if sizes.softcap else 0


def _head(sizes: Sizes, kind: Numbers, tokens: int, residual: int) -> list[Part]:
    # The final norm's input, its output, the rows with a label, their gradient, and that gradient at all rows.
    hidden = tokens * sizes.width * (4 * residual + 2 * COMPUTE + (0 if sizes.fused_layers else 4))
    if sizes.fused_head:
        logits = COMPUTE * sizes.vocabulary * rows_per_chunk(tokens, sizes.width, sizes.vocabulary)
    else:
        # bf16 and fp32 logits, their softmax and two gradients
        logits = 16 * min(tokens * sizes.vocabulary, forward.LOGITS_PER_CHUNK)
    weights = sizes.vocabulary * sizes.width
    gradient = (8 if kind.autocast else 6) * weights if kind.full else 0
    return [
        Part("last hidden state", hidden, GRAPH),
        Part("logits chunk", logits, ("head",)),
        Part("head's gradient", gradient, ("head",)),
    ]
