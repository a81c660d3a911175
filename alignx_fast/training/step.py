"""One optimizer step over any number of micro-batches and any list of losses.

With cached gradients (GradCache, arXiv 2101.06983) a loss sees all pairs of the step at once while only one micro-batch is in memory:

1. `first_pass`: read every micro-batch's sentence vectors without a graph, in a forward pass that ends at the deepest layer needed;
2. `take_whole_step`: take each loss over all vectors, and its gradients at the vectors;
3. `forward_backward`: run every micro-batch once more, now with a graph, and send the losses per micro-batch and the cached gradients back.

Loss and gradients equal those of one full batch; the price is the first pass.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

import torch
from torch import nn

from alignx_fast.data.apart import sentences_apart
from alignx_fast.data.packing import PackedBatch
from alignx_fast.errors import UserError
from alignx_fast.losses.base import Forward, Loss, Pairs, Sequences, Totals, Vectors
from alignx_fast.models.capture import captured, num_layers
from alignx_fast.models.forward import packed_forward
from alignx_fast.training.cache import CachedLoss, build_cache, cached_gradient, concatenate
from alignx_fast.training.random_state import RandomState, random_state, set_random_state
from alignx_fast.training.work import Work

Backward = Callable[[torch.Tensor], None]
Autocast = Callable[[], AbstractContextManager[object]]
Terms = dict[str, torch.Tensor]
"""Detached fp32 scalars: "loss", the weighted sum, and "loss_<name>" for every loss with a weight."""


@dataclass
class Run:
    """The micro-batches of a step as one kind of sequences, and the losses that read them."""

    losses: list[Loss]
    batches: list[PackedBatch]
    random_states: list[RandomState] = field(default_factory=list)
    """The state before each micro-batch of the first pass; empty where there was none."""


class AlignStep:
    """Accumulates the gradients of a weighted sum of losses in the model and in the losses' own parameters.

    Every loss is a mean over the whole step, over all of its label tokens or pairs; or, where its settings ask for that, the pair-weighted
    mean of its values over micro-batches.

    Args:
        losses: as `build_losses` gives them; those without a weight are measured by `dev_terms` alone.
        autocast: entered around every forward pass and loss.
        opening_token: stands in front of sentences that are encoded apart, for the losses that need these.
        on_phase: called with a phase of `alignx_fast.losses.cost.PHASES` when it has ended, for measurements.

    Raises:
        UserError: a loss needs sentences apart, and there is no opening token.
    """

    def __init__(
        self,
        model: nn.Module,
        losses: Iterable[Loss],
        *,
        autocast: Autocast,
        opening_token: int | None = None,
        on_phase: Callable[[str], None] = lambda phase: None,
    ) -> None:
        self.model, self.losses, self.autocast = model, list(losses), autocast
        self.opening_token, self.on_phase = opening_token, on_phase
        self.device = next(model.parameters()).device
        self.work = Work()
        """What all steps so far have sent through the model, dev losses aside."""
        if opening_token is None and (apart := [loss.name for loss in self.losses if loss.sequences is Sequences.SENTENCES]):
            raise UserError(
                f"The loss {apart[0]} encodes sentences apart, each behind one opening token, and there is none: give AlignXTrainer the "
                "tokenizer as `processing_class`, or AlignStep an `opening_token`."
            )

    def __call__(self, batches: Sequence[PackedBatch], backward: Backward) -> Terms:
        """Take one step over micro-batches in CPU memory; `backward` takes a loss (and may scale it)."""
        trained = [loss for loss in self.losses if loss.weight]
        totals, pairs = Totals.of(batches), Pairs.of(batches).to(self.device)
        runs = self._runs(batches, trained)
        cache: dict[str, CachedLoss] = {}
        if len(batches) > 1:  # a single micro-batch is the whole step already
            for run in runs:
                cache |= self.take_whole_step(run, pairs)
        terms = {loss.name: torch.zeros((), device=self.device) for loss in trained}
        for name, cached in cache.items():
            terms[name] += cached.value.float()
        vectors: dict[str, list[Vectors]] = {loss.name: [] for loss in trained}
        for i in range(len(batches)):
            for run in runs:
                for name, read in self.forward_backward(run, i, totals, cache, terms, backward).items():
                    vectors[name].append(read)
        if remembering := [loss for loss in trained if loss.remembers]:
            # In the order of the rows, so that what a loss remembers does not depend on how the step was cut.
            order = torch.tensor([row for batch in batches for row in batch.rows]).argsort().to(self.device)
            for loss in remembering:
                loss.end_step(tuple(whole[order] for whole in concatenate(vectors[loss.name])), pairs.take(order))
        total = torch.zeros((), device=self.device)
        for loss in trained:
            total = total + loss.weight * terms[loss.name]
        return {"loss": total} | {f"loss_{name}": term for name, term in terms.items()}

    def take_whole_step(self, run: Run, pairs: Pairs) -> dict[str, CachedLoss]:
        """Take the losses that want the whole step over the vectors of a first pass; empty where no loss does."""
        losses = [loss for loss in run.losses if loss.settings.needs_whole_step]
        if not losses:
            return {}
        vectors = self.first_pass(run, losses)
        self.on_phase("first_pass")
        with self.autocast():
            cache = {loss.name: build_cache(loss, [read[loss.name] for read in vectors], pairs) for loss in losses}
        self.on_phase("losses")
        return cache

    @torch.no_grad()
    def first_pass(self, run: Run, losses: Sequence[Loss]) -> list[dict[str, Vectors]]:
        """What the losses read of every micro-batch, without a graph; the random states are kept for the second pass."""
        vectors = []
        for batch in run.batches:
            run.random_states.append(random_state(self.device))
            with self.autocast():
                forward = self._forward(losses, batch)
                vectors.append({loss.name: loss.read(forward) for loss in losses})
        return vectors

    def forward_backward(
        self, run: Run, i: int, totals: Totals, cache: dict[str, CachedLoss], terms: Terms, backward: Backward
    ) -> dict[str, Vectors]:
        """Send back the losses of micro-batch i and add them to `terms`; returns the vectors for the losses that remember them."""
        if run.random_states:
            set_random_state(run.random_states[i], self.device)
        total, vectors = self._micro_batch_loss(run, i, totals, cache, terms)
        self.on_phase("head")
        backward(total)
        self.on_phase("backward")
        return {loss.name: tuple(x.detach() for x in vectors[loss.name]) for loss in run.losses if loss.remembers}

    def _micro_batch_loss(
        self, run: Run, i: int, totals: Totals, cache: dict[str, CachedLoss], terms: Terms
    ) -> tuple[torch.Tensor, dict[str, Vectors]]:
        """The scalar to send back; a function of its own, so that hidden states are let go before the backward pass."""
        total = torch.zeros((), device=self.device)
        with self.autocast():
            forward = self._forward(run.losses, run.batches[i], backward=True)
            vectors = {loss.name: loss.read(forward) for loss in run.losses}
            for loss in run.losses:
                if loss.name not in cache:
                    part = loss.of_micro_batch(forward, vectors[loss.name], totals)
                    terms[loss.name] += part.detach().float()
                    total = total + loss.weight * part
        for loss in run.losses:
            if cached := cache.get(loss.name):
                total = total + cached_gradient(vectors[loss.name], cached.gradients[i])
                if i == 0:
                    total = total + cached.surrogate
        return total, vectors

    def _forward(self, losses: Sequence[Loss], batch: PackedBatch, *, backward: bool = False) -> Forward:
        forward = forward_pass(self.model, losses, batch)
        layer_tokens = batch.input_ids.numel() * max(forward.states)
        self.work.forward += layer_tokens
        if backward:
            self.work.backward += layer_tokens
            self.work.head += sum(len(batch.label_positions) for loss in losses if not loss.on_pairs)
        return forward

    @torch.no_grad()
    def dev_terms(self, batches: Sequence[PackedBatch]) -> Terms:
        """Every loss over all label tokens or pairs of the micro-batches, by `loss_<name>`; without gradients, queue or dropout."""
        totals, pairs = Totals.of(batches), Pairs.of(batches).to(self.device)
        terms: Terms = {}
        with self.autocast(), _evaluating(self.losses):
            for run in self._runs(batches, self.losses):
                vectors: dict[str, list[Vectors]] = {loss.name: [] for loss in run.losses}
                for batch in run.batches:
                    forward = forward_pass(self.model, run.losses, batch)
                    for loss in run.losses:
                        vectors[loss.name].append(loss.read(forward))
                        if not loss.on_pairs:
                            part = loss.of_micro_batch(forward, (), totals)
                            terms[loss.name] = terms.get(loss.name, 0.0) + part
                for loss in run.losses:
                    if loss.on_pairs:
                        terms[loss.name] = loss.of_vectors(concatenate(vectors[loss.name]), pairs)
        return {f"loss_{name}": term for name, term in terms.items()}

    def _runs(self, batches: Sequence[PackedBatch], losses: Sequence[Loss]) -> list[Run]:
        """The micro-batches on the device, once for every kind of sequences that a loss asks for."""
        return [
            Run(readers, [self._as(kind, batch).to(self.device) for batch in batches])
            for kind in Sequences
            if (readers := [loss for loss in losses if loss.sequences == kind])
        ]

    def _as(self, kind: Sequences, batch: PackedBatch) -> PackedBatch:
        if kind is Sequences.ROWS:
            return batch
        assert self.opening_token is not None  # checked when the step was made
        return sentences_apart(batch, self.opening_token)


def forward_pass(model: nn.Module, losses: Sequence[Loss], batch: PackedBatch) -> Forward:
    """Run the model on a micro-batch, as far as the deepest layer that the losses read."""
    last, layers = num_layers(model), {layer for loss in losses for layer in loss.layers}
    with captured(model, layers - {last}, stop=last not in layers) as states:
        hidden_TD = packed_forward(model, batch)
        if last in layers:
            states[last] = hidden_TD
    return Forward(model, batch, states)


@contextmanager
def _evaluating(losses: Sequence[Loss]) -> Iterator[None]:
    """The losses in evaluation mode."""
    for loss in losses:
        loss.eval()
    try:
        yield
    finally:
        for loss in losses:
            loss.train()
