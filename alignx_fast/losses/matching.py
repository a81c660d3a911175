"""L_lam, language matching at the last layer: do two sentences share a language? (AlignX, arXiv 2509.24338, section 3).

e_k = mean of the last hidden state over the positions t - 1 for t in span k, sources first, then targets
z = down( silu(gate [e_a ; e_b]) * (up [e_a ; e_b]) ),  L_lam = mean over all (2N)^2 pairs of CE(z, lang_a == lang_b)
"""

import math
from typing import Literal

import torch
from alignx_kernels import language_matching_loss, span_mean
from pydantic import Field
from torch import nn

from alignx_fast.losses.base import Forward, Loss, LossSettings, ModelShape, Pairs, Vectors, translation_spans
from alignx_fast.losses.cost import Part, PlanInput, Saving, optimizer_bytes, vector_parts


class MatchingSettings(LossSettings):
    """The pairwise language classifier."""

    weight: float = Field(0.4, ge=0)
    """w_lam."""
    width: int = Field(128, gt=0)
    """I, inner width of the pairwise classifier."""
    scope: Literal["micro_batch", "step"] = "micro_batch"
    """Pairs from the micro-batch (cheaper), or from the whole step (needs a full extra forward)."""

    @property
    def needs_whole_step(self) -> bool:
        """As `scope` says."""
        return self.scope == "step"

    def memory(self, plan: PlanInput) -> list[Part]:
        """The classifier; over the whole step also the sentence vectors and their projections."""
        width, inner = plan.sizes.width, self.width
        weights = (2 * inner * width, 2 * inner * width, 2 * inner)
        parts = [Part("matching classifier", 8 * sum(weights) + optimizer_bytes(weights, plan.optimizer, 4))]
        if self.weight and self.needs_whole_step:
            projected = 2 * plan.pairs * (4 * width + 3 * 4 * 4 * inner)
            parts += [vector_parts(plan.pairs, width, 2), Part("loss kernels", projected, ("losses",))]
        return parts

    def savings(self) -> list[Saving]:
        """Pairs from the micro-batch."""
        price = "languages are matched within micro-batches"
        return [Saving("scope", "micro_batch", price, 3)] if self.needs_whole_step else []


class Matching(Loss, settings=MatchingSettings):
    """Cross entropy of the pairwise language classifier, which is trained with the model and thrown away afterwards; in fp32."""

    name = "matching"
    title = "language matching L_lam"
    measured_without_weight = True

    def __init__(self, settings: MatchingSettings, shape: ModelShape) -> None:
        super().__init__(settings, shape)
        self.last = shape.layers
        self.gate = nn.Parameter(torch.empty(settings.width, 2 * shape.width))
        self.up = nn.Parameter(torch.empty(settings.width, 2 * shape.width))
        self.down = nn.Parameter(torch.empty(2, settings.width))
        for weight in (self.gate, self.up, self.down):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))  # as nn.Linear does

    @property
    def layers(self) -> tuple[int, ...]:
        """The last one, after the final norm."""
        return (self.last,)

    def read(self, forward: Forward) -> Vectors:
        """e of sources and of targets: mean states of the positions that predict the tokens of a span, one before each.

        Every span has a token before it: the prompt opens with BOS or with the template's own words.
        """
        sources_ND, targets_ND = span_mean(forward.states[self.last], translation_spans(forward.batch) - 1).chunk(2)
        return sources_ND, targets_ND

    def of_vectors(self, vectors: Vectors, pairs: Pairs) -> torch.Tensor:
        """L_lam over all ordered pairs of the 2N sentences given."""
        languages_M = torch.cat([pairs.source_languages_N, pairs.target_languages_N])
        return language_matching_loss(torch.cat(vectors), languages_M, self.gate, self.up, self.down)

    def checkpoint(self) -> dict[str, torch.Tensor]:
        """The classifier, under the names that checkpoints have had from the start."""
        return {f"heads.{key}": tensor for key, tensor in self.state_dict().items()}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take back what `checkpoint` gave."""
        self.load_state_dict({key: tensors[f"heads.{key}"] for key in self.state_dict()})
