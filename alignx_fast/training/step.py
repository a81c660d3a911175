"""One optimizer step over any number of micro-batches and any list of losses.

With cached gradients (GradCache, arXiv 2101.06983) a loss sees all pairs of the step at once while only one micro-batch is in memory:

1. `first_pass`: read every micro-batch's sentence vectors without a graph, in a forward pass that ends at the deepest layer needed;
2. `take_whole_step`: take each loss over all vectors, and its gradients at the vectors;
3. `forward_backward`: run every micro-batch once more, now with a graph, and send the losses per micro-batch and the cached gradients back.

Loss and gradients equal those of one full batch; the price is the first pass.

Several processes take every so many-th micro-batch each. They gather the vectors of 1., so that each of them takes the losses of 2. over the
whole step, and sum their gradients after 3.: again those of one full batch.
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
from alignx_fast.training.processes import ALONE, Processes
from alignx_fast.training.random_state import RandomState, random_state, set_random_state
from alignx_fast.training.work import Work

Backward = Callable[[torch.Tensor], None]
Autocast = Callable[[], AbstractContextManager[object]]
Terms = dict[str, torch.Tensor]
"""Detached fp32 scalars: "loss", the weighted sum, and "loss_<name>" for every loss with a weight."""


@dataclass
class Run:
    """The micro-batches of a step that this process takes, as one kind of sequences, and the losses that read them."""

    losses: list[Loss]
    batches: dict[int, PackedBatch]
    """By their number in the step."""
    random_states: dict[int, RandomState] = field(default_factory=dict)
    """The state before each micro-batch of the first pass; empty where there was none."""


class AlignStep:
    """Accumulates the gradients of a weighted sum of losses in the model and in the losses' own parameters.

    Every loss is a mean over the whole step, over all of its label tokens or pairs; or, where its settings ask for that, the pair-weighted
    mean of its values over micro-batches.

    Args:
        losses: as `build_losses` gives them; those without a weight are measured by `dev_terms` alone.
        autocast: entered around every forward pass and loss.
        opening_token: stands in front of sentences that are encoded apart, for the losses that need these.
        processes: those that take the step together, each with the same model, losses and micro-batches, of which every one takes its share.
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
        processes: Processes = ALONE,
        on_phase: Callable[[str], None] = lambda phase: None,
    ) -> None:
        self.model, self.losses, self.autocast, self.processes = model, list(losses), autocast, processes
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
        """Take one step over micro-batches in CPU memory, no fewer than processes; `backward` takes a loss (and may scale it)."""
        with self.processes.agreed():
            return self._step(batches, backward)

    def _step(self, batches: Sequence[PackedBatch], backward: Backward) -> Terms:
        trained = [loss for loss in self.losses if loss.weight]
        totals, pairs = Totals.of(batches), Pairs.of(batches).to(self.device)
        sizes = [len(batch.meanings) for batch in batches]
        runs = self._runs(batches, trained, self.processes)
        cache: dict[str, CachedLoss] = {}
        if len(batches) > 1:  # a single micro-batch is the whole step already
            for run in runs:
                cache |= self.take_whole_step(run, sizes, pairs)
        terms = {loss.name: torch.zeros((), device=self.device) for loss in trained}
        vectors: dict[str, list[Vectors]] = {loss.name: [] for loss in trained}
        for i in self.processes.share(len(batches)):
            for run in runs:
                for name, read in self.forward_backward(run, i, totals, cache, terms, backward).items():
                    vectors[name].append(read)
        self.processes.sum_gradients(p for module in (self.model, *trained) for p in module.parameters())
        self.processes.sum(terms.values())
        for name, cached in cache.items():  # every process has taken it over the whole step
            terms[name] += cached.value.float()
        if remembering := [loss for loss in trained if loss.remembers]:
            # In the order of the rows, so that what a loss remembers does not depend on how the step was cut.
            order = torch.tensor([row for batch in batches for row in batch.rows]).argsort().to(self.device)
            for loss in remembering:
                whole = concatenate(self.processes.gather(vectors[loss.name], sizes))
                loss.end_step(tuple(part[order] for part in whole), pairs.take(order))
        total = torch.zeros((), device=self.device)
        for loss in trained:
            total = total + loss.weight * terms[loss.name]
        return {"loss": total} | {f"loss_{name}": term for name, term in terms.items()}

    def take_whole_step(self, run: Run, sizes: Sequence[int], pairs: Pairs) -> dict[str, CachedLoss]:
        """Take the losses that want the whole step over the vectors of a first pass; empty where no loss does.

        Args:
            sizes: pairs of every micro-batch of the step.
        """
        losses = [loss for loss in run.losses if loss.settings.needs_whole_step]
        if not losses:
            return {}
        own = self.first_pass(run, losses)
        vectors = {loss.name: self.processes.gather([read[loss.name] for read in own], sizes) for loss in losses}
        self.on_phase("first_pass")
        with self.autocast():
            cache = {loss.name: build_cache(loss, vectors[loss.name], pairs) for loss in losses}
        self.on_phase("losses")
        return cache

    @torch.no_grad()
    def first_pass(self, run: Run, losses: Sequence[Loss]) -> list[dict[str, Vectors]]:
        """What the losses read of every micro-batch, without a graph; the random states are kept for the second pass."""
        vectors = []
        for i, batch in run.batches.items():
            run.random_states[i] = random_state(self.device)
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
        sizes = [len(batch.meanings) for batch in batches]
        processes = self.processes if len(batches) >= self.processes.count else ALONE  # a few are taken by every process
        terms = {loss.name: torch.zeros((), device=self.device) for loss in self.losses}
        with self.processes.agreed(), self.autocast(), _evaluating(self.losses):
            for run in self._runs(batches, self.losses, processes):
                vectors: dict[str, list[Vectors]] = {loss.name: [] for loss in run.losses}
                for batch in run.batches.values():
                    forward = forward_pass(self.model, run.losses, batch)
                    for loss in run.losses:
                        vectors[loss.name].append(loss.read(forward))
                        if not loss.on_pairs:
                            terms[loss.name] += loss.of_micro_batch(forward, (), totals)
                for loss in run.losses:
                    if loss.on_pairs:
                        gathered = processes.gather(vectors[loss.name], sizes)
                        terms[loss.name] = loss.of_vectors(concatenate(gathered), pairs)
                    else:
                        processes.sum([terms[loss.name]])
        return {f"loss_{name}": term for name, term in terms.items()}

    def _runs(self, batches: Sequence[PackedBatch], losses: Sequence[Loss], processes: Processes) -> list[Run]:
        """The micro-batches of this process on the device, once for every kind of sequences that a loss asks for."""
        share = processes.share(len(batches))
        return [
            Run(readers, {i: self._as(kind, batches[i]).to(self.device) for i in share})
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
