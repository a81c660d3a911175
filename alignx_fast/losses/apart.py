"""L_apart, contrastive loss over sentences that are encoded apart: source and target as two sequences of their own.

In the rows of L_ctr the target attends to its source, so that its state can copy what it is to be compared with, and the loss is soon solved. Here
no sentence sees its translation:

    a_i, b_i = mean states of source and target i, each alone behind one opening token that is not pooled
    L_apart = mean over the layers of (InfoNCE(a, b) + InfoNCE(b, a)) / 2 on cosines / tau

With `centre_languages`, a_i and b_i are taken relative to the mean of their language over the step.

The opening token (BOS, or the end token where there is no BOS) takes the part of the attention sink: the state of a sequence's first token is
huge in trained models, and would drown the mean of a short sentence.

Source: "Middle-Layer Representation Alignment for Cross-Lingual Transfer in Fine-Tuned LLMs", arXiv 2502.14830.
"""

from collections.abc import Sequence
from typing import Literal

import torch
from alignx_kernels import info_nce_loss, span_mean
from pydantic import Field

from alignx_fast.errors import UserError
from alignx_fast.fields import Layers
from alignx_fast.losses.base import Forward, Loss, LossSettings, ModelShape, Pairs, Sequences, Vectors, translation_spans
from alignx_fast.losses.centring import centred
from alignx_fast.losses.contrastive import info_nce_workspace
from alignx_fast.losses.cost import Part, PlanInput, vector_parts


class ApartSettings(LossSettings):
    """Symmetric contrastive loss over sentences encoded apart; off unless it has a weight."""

    weight: float = Field(0.0, ge=0)
    """Weight of L_apart, instead of `contrastive` or beside it; about 1 is a good start, 0 is off."""
    temperature: float = Field(0.05, gt=0)
    """tau."""
    layers: Layers | None = None
    """Decoder layers whose outputs are aligned, such as 8,12; default: the align layer."""
    centre_languages: bool = False
    """Take each language's mean over the step away from its vectors first, so that meanings are aligned and not whole languages."""
    mask_false_negatives: bool = True
    """Leave out negatives that say the same thing as the positive (shared text or shared `gid`)."""
    negatives: Literal["step", "micro_batch"] = "step"
    """Take negatives from the whole optimizer step (cached gradients) or from the micro-batch alone."""

    @property
    def needs_whole_step(self) -> bool:
        """As `negatives` says."""
        return self.negatives == "step"

    def check(self, layers: int) -> None:
        """Every layer named must exist.

        Raises:
            UserError: one does not.
        """
        if wrong := [layer for layer in self.layers or () if layer > layers]:
            raise UserError(
                f"align.apart.layers names layer {wrong[0]}, but the model has {layers} layers; choose from 1 to {layers}."
            )

    def depth(self, layers: int, align_layer: int) -> int:
        """The deepest layer named."""
        return max(self.layers or [align_layer])

    def memory(self, plan: PlanInput) -> list[Part]:
        """Over the whole step the sentence vectors and the workspace of the kernels; the layers' losses are taken one after another.

        Its own forward and backward passes need no line: both sentences of a row are shorter than the row, and are run apart from it.
        """
        if not (self.weight and self.needs_whole_step):
            return []
        width, layers = plan.sizes.width, len(self.layers or (0,))
        return [vector_parts(plan.pairs, width, 2 * layers), info_nce_workspace(plan.pairs, plan.pairs, width)]


class Apart(Loss, settings=ApartSettings):
    """Symmetric InfoNCE between sentences and their translations, none of which sees the other."""

    name = "apart"
    title = "contrastive, sentences apart"
    sequences = Sequences.SENTENCES

    settings: ApartSettings

    def __init__(self, settings: ApartSettings, shape: ModelShape) -> None:
        super().__init__(settings, shape)
        settings.check(shape.layers)
        self._layers = tuple(settings.layers or [shape.align_layer])

    @property
    def layers(self) -> tuple[int, ...]:
        """As set, else the align layer."""
        return self._layers

    def read(self, forward: Forward) -> Vectors:
        """Mean states of sources and of targets, layer by layer: (a, b, a, b, ...)."""
        spans_S2 = translation_spans(forward.batch)
        return tuple(half_ND for layer in self.layers for half_ND in span_mean(forward.states[layer], spans_S2).chunk(2))

    def of_vectors(self, vectors: Vectors, pairs: Pairs) -> torch.Tensor:
        """The mean over the layers of both directions' InfoNCE."""
        ids = pairs.meanings_N if self.settings.mask_false_negatives else None
        languages = (pairs.source_languages_N, pairs.target_languages_N)
        halves: list[Sequence[torch.Tensor]] = list(zip(vectors[::2], vectors[1::2], strict=True))
        if self.settings.centre_languages:
            halves = [centred(half, languages) for half in halves]
        losses = [
            info_nce_loss(
                sources_ND,
                targets_ND,
                temperature=self.settings.temperature,
                symmetric=True,
                query_ids=ids,
                key_ids=ids,
            )
            for sources_ND, targets_ND in halves
        ]
        return torch.stack(losses).mean()
