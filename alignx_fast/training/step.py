"""One optimizer step of stage 1 over any number of micro-batches, with negatives from the whole step.

With cached gradients (GradCache, arXiv 2101.06983) the contrastive loss sees all pairs of the step at once while only one
micro-batch is in memory:

1. `forward_no_grad`: pool every micro-batch's sentence vectors without a graph, stopping at the align layer;
2. `build_cache`: take the losses over all vectors, and their gradients at the vectors;
3. `forward_backward`: run every micro-batch once more, now with a graph, and send L_ntp and the cached gradients back together.

Loss and gradients equal those of one full batch; the price is the first pass.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from torch import nn

from alignx_fast.config import AlignSettings
from alignx_fast.data.packing import PackedBatch
from alignx_fast.models.capture import captured
from alignx_fast.models.forward import next_token_loss, packed_forward
from alignx_fast.models.heads import AlignmentHeads
from alignx_fast.training.objective import Vectors, contrastive_loss, forward_pooled, matching_loss, pool_pairs
from alignx_fast.training.queue import TargetQueue

Backward = Callable[[torch.Tensor], None]
Autocast = Callable[[], AbstractContextManager]
Terms = dict[str, torch.Tensor]
"""Detached fp32 scalars: loss, loss_ntp, and loss_contrastive and loss_matching where they have a weight."""


def ntp_step(model: nn.Module, batches: Sequence[PackedBatch], tokens: int, backward: Backward, autocast: Autocast) -> Terms:
    """Next-token loss alone: the mean over all label tokens of the step."""
    total = torch.zeros((), device=batches[0].input_ids.device)
    for batch in batches:
        with autocast():
            loss = next_token_loss(model, packed_forward(model, batch), batch) / tokens
        backward(loss)
        total += loss.detach()
    return {"loss": total, "loss_ntp": total}


class AlignStep:
    """L_ntp + w_ctr L_ctr + w_lam L_lam, accumulated into the gradients of the model and of the heads.

    L_ntp is the mean over the label tokens of the whole step. L_ctr is taken over the pairs of the whole step
    (`contrastive.negatives: step`) or as the pair-weighted mean over micro-batches; L_lam likewise, by `matching.scope`.
    """

    def __init__(self, model: nn.Module, heads: AlignmentHeads, settings: AlignSettings, layer: int, autocast: Autocast) -> None:
        self.model, self.heads, self.settings, self.layer, self.autocast = model, heads, settings, layer, autocast
        self.queue = TargetQueue(settings.contrastive.queue_size, settings.contrastive.queue_max_age)

    def __call__(self, batches: Sequence[PackedBatch], tokens: int, backward: Backward) -> Terms:
        """Accumulate the gradients of one step of `tokens` label tokens; `backward` takes a loss (and may scale it)."""
        w_ctr, w_lam = self.settings.contrastive.weight, self.settings.matching.weight
        many = len(batches) > 1
        # Which losses are taken over the vectors of the whole step, and therefore need the first pass.
        cache_ctr = bool(w_ctr) and many and self.settings.contrastive.negatives == "step"
        cache_lam = bool(w_lam) and many and self.settings.matching.scope == "step"

        vectors, states = [], []
        if cache_ctr or cache_lam:
            for batch in batches:
                states.append(rng_state(batch.input_ids.device))
                vectors.append(self.forward_no_grad(batch, to_the_end=cache_lam))
        cached, surrogate, terms = self.build_cache(batches, vectors, contrastive=cache_ctr, matching=cache_lam)

        pairs = sum(len(batch.meanings) for batch in batches)
        targets = []
        for i, batch in enumerate(batches):
            if states:
                set_rng_state(states[i], batch.input_ids.device)
            share = len(batch.meanings) / pairs
            with self.autocast():
                hidden_TD, pooled = forward_pooled(self.model, batch, self.layer, matching=bool(w_lam))
                loss_ntp = next_token_loss(self.model, hidden_TD, batch) / tokens
                loss = loss_ntp
                if w_ctr and not cache_ctr:
                    part = share * contrastive_loss(pooled, self.heads, self.settings, batch.meanings, self.queue.negatives())
                    loss = loss + w_ctr * part
                    _add(terms, "loss_contrastive", part)
                if w_lam and not cache_lam:
                    part = share * matching_loss(pooled, self.heads, batch.languages)
                    loss = loss + w_lam * part
                    _add(terms, "loss_matching", part)
            if cached:
                loss = loss + _dot(pooled, cached[i])
            if surrogate is not None:
                loss, surrogate = loss + surrogate, None
            backward(loss)
            _add(terms, "loss_ntp", loss_ntp)
            targets.append(pooled.targets_ND.detach())
        if self.queue.size:
            # In the order of the rows, so that what the queue forgets first does not depend on how the step was cut.
            order = torch.tensor([row for batch in batches for row in batch.rows]).argsort().to(targets[0].device)
            self.queue.push(torch.cat(targets)[order], _meanings(batches)[order])
        terms["loss"] = terms["loss_ntp"] + w_ctr * terms.get("loss_contrastive", 0.0) + w_lam * terms.get("loss_matching", 0.0)
        return terms

    @torch.no_grad()
    def losses(self, batches: Sequence[PackedBatch], tokens: int) -> Terms:
        """The terms without gradients, contrastive and matching loss over all pairs given: for dev sets."""
        vectors, loss_ntp = [], torch.zeros((), device=batches[0].input_ids.device)
        with self.autocast():
            for batch in batches:
                hidden_TD, pooled = forward_pooled(self.model, batch, self.layer, matching=True)
                loss_ntp += next_token_loss(self.model, hidden_TD, batch) / tokens
                vectors.append(pooled)
            whole = _concatenate(vectors)
            return {
                "loss_ntp": loss_ntp,
                "loss_contrastive": contrastive_loss(whole, self.heads, self.settings, _meanings(batches), None),
                "loss_matching": matching_loss(whole, self.heads, _languages(batches)),
            }

    @torch.no_grad()
    def forward_no_grad(self, batch: PackedBatch, *, to_the_end: bool) -> Vectors:
        """Pooled vectors of one micro-batch; the pass ends at the align layer unless the matching loss needs the last state."""
        with self.autocast():
            if to_the_end:
                return forward_pooled(self.model, batch, self.layer, matching=True)[1]
            with captured(self.model, [self.layer], lambda hidden_TD: pool_pairs(hidden_TD, batch), stop=True) as states:
                packed_forward(self.model, batch)
            sources_ND, targets_ND = states[self.layer]
            return Vectors(sources_ND, targets_ND, None)

    def build_cache(
        self, batches: Sequence[PackedBatch], vectors: list[Vectors], *, contrastive: bool, matching: bool
    ) -> tuple[list[Vectors], torch.Tensor | None, Terms]:
        """Losses over the whole step and their gradients at the vectors, split by micro-batch.

        Also returns a surrogate whose gradient at the heads' parameters is that of the losses, so that loss scaling treats them
        as it treats everything else.
        """
        if not vectors:
            return [], None, {}
        whole = _wide(_concatenate(vectors))
        leaves = [t.requires_grad_() for t in (whole.sources_ND, whole.targets_ND, whole.matching_MD) if t is not None]
        parameters = [p for p in self.heads.parameters() if p.requires_grad]
        terms: Terms = {}
        loss = torch.zeros((), device=leaves[0].device)
        with self.autocast():
            if contrastive:
                queued = self.queue.negatives()
                terms["loss_contrastive"] = contrastive_loss(whole, self.heads, self.settings, _meanings(batches), queued)
                loss = loss + self.settings.contrastive.weight * terms["loss_contrastive"]
            if matching:
                terms["loss_matching"] = matching_loss(whole, self.heads, _languages(batches))
                loss = loss + self.settings.matching.weight * terms["loss_matching"]
        gradients = torch.autograd.grad(loss, [*leaves, *parameters], allow_unused=True)
        surrogate = sum(
            ((p * g).sum() for p, g in zip(parameters, gradients[len(leaves) :], strict=True) if g is not None),
            torch.zeros((), device=loss.device),
        )
        filled = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, gradients, strict=False)]
        sizes = [len(batch.meanings) for batch in batches]
        sources, targets = (gradient.split(sizes) for gradient in filled[:2])
        lam: list[torch.Tensor | None] = [None] * len(batches)
        if len(filled) == 3:
            first, second = (half.split(sizes) for half in filled[2].chunk(2))
            lam = [torch.cat(pair) for pair in zip(first, second, strict=True)]
        cache = [Vectors(*parts) for parts in zip(sources, targets, lam, strict=True)]
        return cache, surrogate, {name: term.detach() for name, term in terms.items()}


def _meanings(batches: Sequence[PackedBatch]) -> torch.Tensor:
    return torch.cat([batch.meanings for batch in batches])


def _languages(batches: Sequence[PackedBatch]) -> torch.Tensor:
    """[2N], sources of all batches first."""
    halves = [batch.languages.chunk(2) for batch in batches]
    return torch.cat([half[side] for side in (0, 1) for half in halves])


def _concatenate(vectors: list[Vectors]) -> Vectors:
    matching = [v.matching_MD for v in vectors if v.matching_MD is not None]
    halves = list(zip(*(m.chunk(2) for m in matching), strict=True))
    return Vectors(
        torch.cat([v.sources_ND for v in vectors]),
        torch.cat([v.targets_ND for v in vectors]),
        torch.cat([torch.cat(half) for half in halves]) if halves else None,
    )


def _wide(vectors: Vectors) -> Vectors:
    """fp16 as fp32: gradients at single vectors are small, and the loss is scaled only when they are sent back."""
    if vectors.sources_ND.dtype != torch.float16:
        return vectors
    matching = None if vectors.matching_MD is None else vectors.matching_MD.float()
    return Vectors(vectors.sources_ND.float(), vectors.targets_ND.float(), matching)


def _dot(pooled: Vectors, gradient: Vectors) -> torch.Tensor:
    """A scalar whose gradient at the pooled vectors is the cached one."""
    total = (pooled.sources_ND * gradient.sources_ND).sum() + (pooled.targets_ND * gradient.targets_ND).sum()
    if gradient.matching_MD is not None:
        assert pooled.matching_MD is not None
        total = total + (pooled.matching_MD * gradient.matching_MD).sum()
    return total


def _add(terms: Terms, name: str, value: torch.Tensor) -> None:
    terms[name] = terms.get(name, 0.0) + value.detach().float()


def rng_state(device: torch.device) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Random state of the CPU and, on a GPU, of `device`: what dropout is drawn from."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_rng_state(state: tuple[torch.Tensor, torch.Tensor | None], device: torch.device) -> None:
    """Restore what `rng_state` gave."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
