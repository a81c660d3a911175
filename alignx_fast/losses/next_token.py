"""L_ntp, next-token prediction: the mean cross entropy over all label tokens of the optimizer step (AlignX, arXiv 2509.24338, section 3)."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import nn
from torch.utils.checkpoint import checkpoint

from alignx_fast.losses.base import Forward, Loss, LossSettings, ModelShape, Totals, Vectors
from alignx_fast.losses.cost import COMPUTE, GRAPH, Part, PlanInput
from alignx_fast.models.capture import causal_model
from alignx_fast.models.chunked_head import chunked_cross_entropy
from alignx_fast.models.forward import LOGITS_PER_CHUNK, head_logits, head_module
from alignx_fast.models.fused import fused_cross_entropy, fuses_head, is_plain_head, rows_per_chunk

if TYPE_CHECKING:
    from alignx_fast.data.packing import PackedBatch


class NextTokenSettings(LossSettings):
    """Nothing to set: every stage trains it, with weight 1."""

    weight: float = Field(1.0, ge=1, le=1)

    def memory(self, plan: PlanInput) -> list[Part]:
        """The last hidden state and a chunk of logits."""
        sizes, rows = plan.sizes, plan.tokens
        # The final norm's input, its output, the rows with a label, their gradient, and that gradient at all rows.
        hidden = rows * sizes.width * (4 * plan.residual + 2 * COMPUTE + (0 if sizes.fused_layers else 4))
        if sizes.fused_head:
            logits = COMPUTE * sizes.vocabulary * rows_per_chunk(rows, sizes.width, sizes.vocabulary)
        else:
            # bf16 and fp32 logits, their softmax and two gradients
            logits = 16 * min(rows * sizes.vocabulary, LOGITS_PER_CHUNK)
        weights = sizes.vocabulary * sizes.width
        gradient = (8 if plan.autocast else 6) * weights if plan.full else 0
        return [
            Part("last hidden state", hidden, GRAPH),
            Part("logits chunk", logits, ("head",)),
            Part("head's gradient", gradient, ("head",)),
        ]


class NextToken(Loss, settings=NextTokenSettings):
    """Cross entropy of each label token given the tokens before it, over the label tokens of the whole step."""

    name = "ntp"
    title = "next-token prediction L_ntp"
    on_pairs = False

    def __init__(self, settings: NextTokenSettings, shape: ModelShape) -> None:
        super().__init__(settings, shape)
        self.last = shape.layers

    @property
    def layers(self) -> tuple[int, ...]:
        """The last one, after the final norm."""
        return (self.last,)

    def of_micro_batch(self, forward: Forward, vectors: Vectors, totals: Totals) -> torch.Tensor:
        """The micro-batch's sum over the label tokens of the step."""
        return next_token_loss(forward.model, forward.states[self.last], forward.batch) / totals.tokens


def next_token_loss(model: nn.Module, hidden_TD: torch.Tensor, batch: "PackedBatch") -> torch.Tensor:
    """Sum of next-token cross entropies, in at least fp32; logits exist for one chunk of tokens at a time, by a fused kernel on a GPU.

    Args:
        hidden_TD: last hidden state.
        batch: its `label_positions` are the tokens to predict, each from the state before it.
    """
    hidden_KD, labels_K = hidden_TD[batch.label_positions - 1], batch.input_ids[0, batch.label_positions]
    wide = torch.promote_types(hidden_TD.dtype, torch.float32)
    head, config = head_module(model), causal_model(model).config.get_text_config()
    softcap = getattr(config, "final_logit_softcapping", None)
    if hidden_TD.is_cuda and wide == torch.float32 and len(labels_K) and fuses_head(head, config):
        assert isinstance(head, nn.Linear)
        return fused_cross_entropy(head, hidden_KD, labels_K, softcap)
    if is_plain_head(head, config):
        assert isinstance(head, nn.Linear)
        return chunked_cross_entropy(head, hidden_KD, labels_K, softcap)
    chunk = max(1, LOGITS_PER_CHUNK // config.vocab_size)

    def chunk_loss(hidden_CD: torch.Tensor, labels_C: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(head_logits(model, hidden_CD).to(wide), labels_C, reduction="sum")

    total = hidden_TD.new_zeros((), dtype=wide)
    for hidden_CD, labels_C in zip(torch.split(hidden_KD, chunk), torch.split(labels_K, chunk), strict=True):
        if len(labels_K) > chunk and torch.is_grad_enabled():
            # Logits are computed again in backward, so that no more than one chunk of them is ever held.
            total = total + checkpoint(chunk_loss, hidden_CD, labels_C, use_reentrant=False)
        else:
            total = total + chunk_loss(hidden_CD, labels_C)
    return total
