"""An estimate of a step's time: floating-point operations over an assumed rate, and what 4-bit weights cost to unpack."""

from alignx_fast.config import AlignSettings, InstructSettings, ModelSettings
from alignx_fast.memory.gpus import UTILISATION, Gpu
from alignx_fast.memory.sizes import Sizes

TOKENS_PER_ROW = 128
"""Assumed mean length of a row: a sentence of about 30 words in two languages, and the instruction."""


def step_tokens(stage: AlignSettings | InstructSettings, max_length: int) -> int:
    """Tokens of one optimizer step at the assumed mean length."""
    rows = stage.pairs_per_step if isinstance(stage, AlignSettings) else stage.rows_per_step
    return rows * min(TOKENS_PER_ROW, max_length)


def body_passes(
    model: ModelSettings, stage: AlignSettings | InstructSettings, *, align_share: float, micro_batches: int
) -> float:
    """Forward passes through the body that one step costs per token, a backward product counted like a forward one.

    One forward; one product backward for the inputs' gradient, a second for the weights' where these are trained; one forward more for
    the recomputed layers; and with cached gradients a pass to the align layer, or to the end.
    """
    passes = 2.0 + (model.tuning == "full")
    if every := int(model.gradient_checkpointing):
        passes += 1 / every
    if isinstance(stage, AlignSettings) and micro_batches > 1:
        if stage.matching.weight and stage.matching.scope == "step":
            passes += 1
        elif stage.contrastive.weight and stage.contrastive.negatives == "step":
            passes += align_share
    return passes


def step_flops(sizes: Sizes, model: ModelSettings, *, tokens: int, passes: float) -> float:
    """Floating-point operations of one step: 2 per weight, token and pass, and attention over the assumed row length."""
    attention = 4 * sizes.attention * sizes.layers * TOKENS_PER_ROW / 2
    head_passes = 2 + (model.tuning == "full")
    return tokens * (passes * (2 * sizes.quantised + attention) + head_passes * 2 * sizes.vocabulary * sizes.width)


def step_seconds(
    sizes: Sizes, model: ModelSettings, gpu: Gpu, *, tokens: int, passes: float, micro_batches: int, trained: int
) -> float:
    """Estimated seconds of one optimizer step."""
    products = step_flops(sizes, model, tokens=tokens, passes=passes) / (gpu.tflops * 1e12 * UTILISATION)
    # A 4-bit weight is read (0.5 bytes), written in bf16 and read again for every micro-batch and pass.
    unpacked = micro_batches * passes * 4.5 * sizes.quantised if model.tuning == "qlora" else 0
    # The update reads weight, gradient and two moments and writes three of them.
    moved = unpacked + 28 * trained
    return products + moved / (gpu.bandwidth * 1e9 * 0.8)
