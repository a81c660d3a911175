"""An estimate of a step's time: floating-point operations over an assumed rate, and what 4-bit weights cost to unpack."""

from alignx_fast.config import ModelSettings, StageSettings
from alignx_fast.losses.base import Sequences
from alignx_fast.losses.build import stage_losses
from alignx_fast.memory.gpus import UTILISATION, Gpu
from alignx_fast.memory.sizes import Sizes

TOKENS_PER_ROW = 128
"""Assumed mean length of a row: a sentence of about 30 words in two languages, and the instruction."""

LENGTH = {Sequences.ROWS: 1.0, Sequences.SENTENCES: 0.6}
"""Assumed tokens of what a loss reads, as a share of the row's: two sentences without the instruction."""


def step_tokens(stage: StageSettings, max_length: int) -> int:
    """Tokens of one optimizer step at the assumed mean length."""
    return stage.step_rows * min(TOKENS_PER_ROW, max_length)


def body_passes(model: ModelSettings, stage: StageSettings, *, layers: int, align_layer: int, micro_batches: int) -> float:
    """Forward passes through the body that one step costs per token, a backward product counted like a forward one.

    One forward; one product backward for the inputs' gradient, a second for the weights' where these are trained; one forward more for
    the recomputed layers; with cached gradients a first pass to the deepest layer that a loss over the whole step reads; and the same
    again, to the depth and at the length that they need, for losses over sentences encoded apart.
    """
    trained = 2.0 + (model.tuning == "full")
    if every := int(model.gradient_checkpointing):
        trained += 1 / every
    passes = 0.0
    for kind in Sequences:
        readers = [loss for loss in stage_losses(stage) if loss.weight and loss.loss.sequences == kind]
        cached = [loss for loss in readers if loss.needs_whole_step and micro_batches > 1]
        depths = [max((loss.depth(layers, align_layer) for loss in group), default=0) / layers for group in (readers, cached)]
        passes += LENGTH[kind] * (trained * depths[0] + depths[1])
    return passes


def step_flops(sizes: Sizes, model: ModelSettings, *, tokens: float, passes: float) -> float:
    """Floating-point operations of one step: 2 per weight, token and pass, and attention over the assumed row length."""
    attention = 4 * sizes.attention * sizes.layers * TOKENS_PER_ROW / 2
    head_passes = 2 + (model.tuning == "full")
    return tokens * (passes * (2 * sizes.quantised + attention) + head_passes * 2 * sizes.vocabulary * sizes.width)


def step_seconds(
    sizes: Sizes, model: ModelSettings, gpu: Gpu, *, tokens: float, passes: float, micro_batches: int, trained: int
) -> float:
    """Estimated seconds of one optimizer step."""
    products = step_flops(sizes, model, tokens=tokens, passes=passes) / (gpu.tflops * 1e12 * UTILISATION)
    # A 4-bit weight is read (0.5 bytes), written in bf16 and read again for every micro-batch and pass.
    unpacked = micro_batches * passes * 4.5 * sizes.quantised if model.tuning == "qlora" else 0
    # The update reads weight, gradient and two moments and writes three of them.
    moved = unpacked + 28 * trained
    return products + moved / (gpu.bandwidth * 1e9 * 0.8)
