"""L_ctr, instruction contrastive learning: each source against all targets, at the align layer (AlignX, arXiv 2509.24338, section 3).

c_i = mean of the align layer's states over the source span of pair i, d_j = the same over the target span of pair j
L_ctr = -(1/N) sum_i log( exp(cos(c_i, d_i) / tau) / sum_j exp(cos(c_i, d_j) / tau) )
"""

import math
from typing import Literal

import torch
from alignx_kernels import info_nce_loss, span_mean
from alignx_kernels.info_nce.tiles import CHUNK_BYTES
from pydantic import Field
from torch import nn

from alignx_fast.losses.base import Forward, Loss, LossSettings, ModelShape, Pairs, Vectors, translation_spans
from alignx_fast.losses.cost import COMPUTE, Part, PlanInput, Saving, vector_parts
from alignx_fast.losses.queue import TargetQueue

LEARNED_TEMPERATURES = (1e-3, 100.0)
"""Range of a learned tau: at its ends the similarities count for all, or for nothing."""


class ContrastiveSettings(LossSettings):
    """Sources against targets within the rows as they are trained on."""

    weight: float = Field(0.15, ge=0)
    """w_ctr. The paper's code uses 0.3 on a loss with a factor of one half: 0.15 here."""
    temperature: float = Field(0.1, gt=0)
    """tau."""
    learn_temperature: bool = False
    """Train tau, starting from `temperature`; it stays between 0.001 and 100, or its start."""
    symmetric: bool = False
    """Mean of both directions; the paper uses source to target only."""
    mask_false_negatives: bool = True
    """Leave out negatives that say the same thing as the positive (shared text or shared `gid`)."""
    negatives: Literal["step", "micro_batch"] = "step"
    """Take negatives from the whole optimizer step (cached gradients) or from the micro-batch alone."""
    queue_size: int = Field(0, ge=0)
    """Past target embeddings kept as extra negatives; 0 is off."""
    queue_max_age: int = Field(8, ge=1)
    """Steps after which a queued embedding is thrown away."""

    @property
    def needs_whole_step(self) -> bool:
        """As `negatives` says."""
        return self.negatives == "step"

    def depth(self, layers: int, align_layer: int) -> int:
        """The align layer."""
        return align_layer

    def memory(self, plan: PlanInput) -> list[Part]:
        """The queue; over the whole step also the sentence vectors and the workspace of the kernels."""
        width, keys = plan.sizes.width, plan.pairs + self.queue_size
        parts = [Part("queue of targets", COMPUTE * width * self.queue_size)]
        if self.weight and self.needs_whole_step:
            parts += [vector_parts(plan.pairs, width, 2), info_nce_workspace(plan.pairs, keys, width)]
        return parts

    def savings(self) -> list[Saving]:
        """No queue."""
        return [Saving("queue_size", 0, "no negatives from earlier steps", 3)] if self.queue_size else []


def info_nce_workspace(queries: int, keys: int, width: int) -> Part:
    """What InfoNCE holds beside its inputs: gradients at the similarities of a chunk of rows, and fp32 gradients at the vectors."""
    chunk = min(CHUNK_BYTES, COMPUTE * queries * keys)
    return Part("loss kernels", chunk + 8 * width * (queries + keys), ("losses",))


class Contrastive(Loss, settings=ContrastiveSettings):
    """InfoNCE of mean source states against mean target states."""

    name = "contrastive"
    title = "contrastive L_ctr"
    measured_without_weight = True

    settings: ContrastiveSettings

    def __init__(self, settings: ContrastiveSettings, shape: ModelShape) -> None:
        super().__init__(settings, shape)
        self.layer = shape.align_layer
        self.log_temperature = nn.Parameter(
            torch.tensor(math.log(settings.temperature)), requires_grad=settings.learn_temperature
        )
        self.queue = TargetQueue(settings.queue_size, settings.queue_max_age)

    @property
    def layers(self) -> tuple[int, ...]:
        """The align layer."""
        return (self.layer,)

    def temperature(self) -> torch.Tensor | float:
        """tau: a tensor that takes gradients when it is learned, else the number of the settings, for which no GPU is asked."""
        return self.log_temperature.exp() if self.settings.learn_temperature else self.settings.temperature

    def after_update(self) -> None:
        """A learned tau stays in its range, and with it finite and positive."""
        if self.settings.learn_temperature:
            least, most = LEARNED_TEMPERATURES
            with torch.no_grad():
                self.log_temperature.clamp_(
                    math.log(min(least, self.settings.temperature)), math.log(max(most, self.settings.temperature))
                )

    def read(self, forward: Forward) -> Vectors:
        """(c, d): mean states of sources and of targets."""
        sources_ND, targets_ND = span_mean(forward.states[self.layer], translation_spans(forward.batch)).chunk(2)
        return sources_ND, targets_ND

    def of_vectors(self, vectors: Vectors, pairs: Pairs) -> torch.Tensor:
        """L_ctr over the pairs given, in training with queued targets as extra negatives."""
        sources_ND, keys_MD = vectors
        key_ids = pairs.meanings_N
        if self.training and (queued := self.queue.negatives()) is not None:
            keys_MD, key_ids = torch.cat([keys_MD, queued[0].to(keys_MD.dtype)]), torch.cat([key_ids, queued[1]])
        masked = self.settings.mask_false_negatives
        return info_nce_loss(
            sources_ND,
            keys_MD,
            temperature=self.temperature(),
            symmetric=self.settings.symmetric,
            query_ids=pairs.meanings_N if masked else None,
            key_ids=key_ids if masked else None,
        )

    @property
    def remembers(self) -> bool:
        """With a queue."""
        return bool(self.settings.queue_size)

    def end_step(self, vectors: Vectors, pairs: Pairs) -> None:
        """Queue the targets."""
        self.queue.push(vectors[1], pairs.meanings_N)

    def checkpoint(self) -> dict[str, torch.Tensor]:
        """The temperature and the queue, under the names that checkpoints have had from the start."""
        return {"heads.log_temperature": self.log_temperature} | self.queue.state_dict()

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take back what `checkpoint` gave."""
        self.load_state_dict({"log_temperature": tensors["heads.log_temperature"]})
        queue = {key: tensor for key, tensor in tensors.items() if key.startswith("queue.")}
        self.queue.load_state_dict(queue, self.log_temperature.device)
