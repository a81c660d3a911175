"""What a loss is. The optimizer step (`alignx_fast.training.step`) asks a loss for these things and for nothing else.

Shape legend: T tokens of a packed batch, N pairs of a micro-batch or of a whole step, D hidden width, L decoder layers.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

import torch
from pydantic import Field
from torch import nn

from alignx_fast.fields import Group
from alignx_fast.losses.cost import Part, PlanInput, Saving

if TYPE_CHECKING:
    from alignx_fast.data.packing import PackedBatch

Vectors = tuple[torch.Tensor, ...]
"""Sentence vectors that a loss reads of a forward pass: any number of [N, D], row i of each belongs to pair i."""


class Sequences(StrEnum):
    """What the model runs on for a loss."""

    ROWS = "rows"
    """Rows as they are trained on: instruction, source and target in one sequence."""
    SENTENCES = "sentences"
    """Every source and every target as a sequence of its own, behind an opening token."""


@dataclass(frozen=True)
class ModelShape:
    """What a loss may know of the model before it runs."""

    width: int
    """Hidden width D."""
    layers: int
    """Decoder layers L; hidden states are numbered 0 (embeddings) to L (after the final norm)."""
    align_layer: int
    """`model.align_layer`, where sentences are aligned unless a loss has a layer of its own."""


@dataclass(frozen=True)
class Pairs:
    """What is known of N translation pairs besides their vectors; int64, on the vectors' device."""

    meanings_N: torch.Tensor
    """Equal numbers say the same thing."""
    source_languages_N: torch.Tensor
    target_languages_N: torch.Tensor

    @staticmethod
    def of(batches: Sequence["PackedBatch"]) -> "Pairs":
        """The pairs of some micro-batches, in order."""
        halves = [batch.languages.chunk(2) for batch in batches]
        return Pairs(
            torch.cat([batch.meanings for batch in batches]),
            torch.cat([source for source, _ in halves]),
            torch.cat([target for _, target in halves]),
        )

    def to(self, device: torch.device) -> "Pairs":
        """The same pairs on another device."""
        return Pairs(*(getattr(self, field.name).to(device) for field in fields(self)))

    def take(self, order: torch.Tensor) -> "Pairs":
        """The pairs in another order."""
        return Pairs(*(getattr(self, field.name)[order] for field in fields(self)))


@dataclass(frozen=True)
class Totals:
    """What a whole optimizer step holds: the denominators of its means."""

    tokens: int
    """Label tokens."""
    pairs: int

    @staticmethod
    def of(batches: Sequence["PackedBatch"]) -> "Totals":
        """The totals of all micro-batches of a step."""
        return Totals(sum(batch.num_label_tokens for batch in batches), sum(len(batch.meanings) for batch in batches))


@dataclass(frozen=True)
class Forward:
    """A forward pass over one micro-batch."""

    model: nn.Module
    batch: "PackedBatch"
    states: dict[int, torch.Tensor]
    """Layer -> hidden state [T, D], for the layers that the losses asked for."""


class LossSettings(Group):
    """Settings of one loss, and what they cost: a group of its own under `align`, named as the loss."""

    loss: ClassVar[type["Loss"]]
    """The loss that these settings belong to."""

    weight: float = Field(0.0, ge=0)
    """Weight of the loss in the sum; 0 is off."""

    @property
    def needs_whole_step(self) -> bool:
        """Whether the value is taken over the vectors of the whole step, by cached gradients, instead of per micro-batch."""
        return False

    def check(self, layers: int) -> None:
        """Refuse what a model of so many decoder layers cannot do.

        Raises:
            UserError: a setting names a layer that the model does not have.
        """

    def depth(self, layers: int, align_layer: int) -> int:
        """The deepest of a model's `layers` that the loss reads: how far a forward pass for it alone must go."""
        return layers

    def memory(self, plan: PlanInput) -> list[Part]:
        """Bytes on the GPU, besides those of the model's forward and backward pass."""
        return []

    def savings(self) -> list[Saving]:
        """Changes of these settings that save memory."""
        return []


class Loss(nn.Module):
    """One term of the training loss: `weight` times its value is added to the sum.

    A subclass names its settings: `class Apart(Loss, settings=ApartSettings)`.
    """

    name: ClassVar[str]
    """Field of `AlignSettings`, and `loss_<name>` in the run log."""
    title: ClassVar[str]
    """What the report calls it."""
    sequences: ClassVar[Sequences] = Sequences.ROWS
    """What the model runs on for this loss."""
    on_pairs: ClassVar[bool] = True
    """The value is a function of the vectors of pairs (`of_vectors`); false: `of_micro_batch` says all."""
    measured_without_weight: ClassVar[bool] = False
    """Its dev value is taken even with weight 0, so that a control run shows what it does not train."""

    def __init__(self, settings: LossSettings, shape: ModelShape) -> None:
        super().__init__()
        self.settings = settings

    def __init_subclass__(cls, settings: type[LossSettings] | None = None) -> None:
        super().__init_subclass__()
        if settings is not None:
            settings.loss = cls

    @property
    def weight(self) -> float:
        """Factor of this loss in the sum."""
        return self.settings.weight

    @property
    def layers(self) -> tuple[int, ...]:
        """Layers whose hidden states `read` and `of_micro_batch` use, 0 to L."""
        raise NotImplementedError

    def read(self, forward: Forward) -> Vectors:
        """The sentence vectors of a micro-batch, in the dtype of the hidden states; none for a loss that is no loss on pairs."""
        return ()

    def of_vectors(self, vectors: Vectors, pairs: Pairs) -> torch.Tensor:
        """The value over N pairs: a scalar, in at least fp32, whose gradient flows to the vectors and to the loss's parameters."""
        raise NotImplementedError

    def of_micro_batch(self, forward: Forward, vectors: Vectors, totals: Totals) -> torch.Tensor:
        """The share of one micro-batch in the value of the step: for a loss on pairs, weighted by its number of pairs."""
        share = len(forward.batch.meanings) / totals.pairs
        return share * self.of_vectors(vectors, Pairs.of([forward.batch]))

    @property
    def remembers(self) -> bool:
        """Whether `end_step` wants the vectors of the step."""
        return False

    def end_step(self, vectors: Vectors, pairs: Pairs) -> None:
        """Called after the last micro-batch with all vectors of the step, detached and in the order of the rows."""

    def after_update(self) -> None:
        """Called after every update of the loss's parameters, to keep them within their limits."""

    def checkpoint(self) -> dict[str, torch.Tensor]:
        """Everything a resumed run needs of this loss. Of one that remembers, `end_step` must not change these tensors in place: they are what
        is put back when a step is skipped."""
        return {f"{self.name}.{key}": tensor for key, tensor in self.state_dict().items()}

    def restore(self, tensors: dict[str, torch.Tensor]) -> None:
        """Take back what `checkpoint` gave; `tensors` may hold those of other losses too."""
        self.load_state_dict({key: tensors[f"{self.name}.{key}"] for key in self.state_dict()})


def translation_spans(batch: "PackedBatch") -> torch.Tensor:
    """[2N, 2] token spans of all sources, then of all targets."""
    return torch.cat([batch.source_spans, batch.target_spans])
