"""Losses of sentence-transformers (6.0 and 6.2) on these kernels: the same names, arguments, values and gradients.

    from alignx_kernels.integrations.sentence_transformers import MultipleNegativesRankingLoss

| class | similarities | what the library's own code computes |
|---|---|---|
| `MultipleNegativesRankingLoss` | in the kernels, never stored | hardness weights, another `similarity_fct` than `cos_sim`, "doc_to_doc" without "doc_to_query" |
| `CachedMultipleNegativesRankingLoss` | the same | the same |
| `CachedGISTEmbedLoss` | plain PyTorch in chunks of rows: the kernels take no mask of a guide | nothing |
| `MatryoshkaLoss` | as the wrapped loss, on prefixes of the embeddings, which are not copied | wrapped losses that are not of this module |

A zero vector gets gradient 0 here; the library divides by 1e-12.
"""

import logging
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from sentence_transformers.sentence_transformer import losses as library
from sentence_transformers.util import all_gather_with_grad, cos_sim, get_rank

from .embedding_losses import guided, multiple_negatives

__all__ = ["CachedGISTEmbedLoss", "CachedMultipleNegativesRankingLoss", "MatryoshkaLoss", "MultipleNegativesRankingLoss"]
logger = logging.getLogger(__name__)
Column = list[torch.Tensor]
"""One column of the batch, embedded mini-batch by mini-batch."""


class _OnPrefixes:
    """A loss of this module; `MatryoshkaLoss` sets the prefixes for the duration of a call."""

    prefixes: Sequence[tuple[int, float]] | None = None
    """Widths and weights; None for the whole embeddings with weight 1."""

    def sum_over_prefixes(
        self, of_embeddings: Callable[[list[torch.Tensor]], torch.Tensor], embeddings: list[torch.Tensor]
    ) -> torch.Tensor:
        """The weighted sum of a loss over the prefixes of the embeddings."""
        if self.prefixes is None:
            return of_embeddings(embeddings)
        width = embeddings[0].shape[1]
        if self.prefixes[0][0] > width:
            raise ValueError(
                f"Dimension {self.prefixes[0][0]} in matryoshka_dims is greater than the model's embedding dimension: {width}."
            )
        losses = [weight * of_embeddings([side[:, :dim] for side in embeddings]) for dim, weight in self.prefixes]
        return torch.stack(losses).sum()


def _kernels_take(loss: Any) -> bool:
    """Whether the kernels compute what a (Cached)MultipleNegativesRankingLoss is set to; says once if not."""
    hard = loss.hardness_mode is not None and loss.hardness_strength > 0
    alone = "doc_to_doc" in loss.directions and "doc_to_query" not in loss.directions
    if loss.similarity_fct is cos_sim and not hard and not alone:
        return True
    if not getattr(loss, "said_so", False):
        loss.said_so = True
        what = "hardness_mode" if hard else "directions" if alone else "similarity_fct"
        logger.warning(
            f"{type(loss).__name__}: sentence-transformers' own code computes this loss, because the kernels do not take its {what}."
        )
    return False


def _multiple_negatives(loss: Any, embeddings: list[torch.Tensor]) -> torch.Tensor:
    n, offset = len(embeddings[0]), 0
    if loss.gather_across_devices:
        embeddings = [all_gather_with_grad(side) for side in embeddings]
        offset = get_rank() * n
    return multiple_negatives(
        embeddings[0],
        embeddings[1:],
        temperature=1 / loss.scale,
        directions=loss.directions,
        joint=loss.partition_mode == "joint",
        offset=offset,
        num_queries=n,
    )


class MultipleNegativesRankingLoss(_OnPrefixes, library.MultipleNegativesRankingLoss):  # type: ignore[misc, unused-ignore]  # typed where it is installed
    """sentence-transformers' class of this name, on `info_nce_loss`."""

    def compute_loss_from_embeddings(self, embeddings: list[torch.Tensor], labels: torch.Tensor | None) -> torch.Tensor:
        """The loss of one [N, D] for each column of the batch."""
        if len(embeddings) < 2:
            raise ValueError(f"Expected at least 2 embeddings, got {len(embeddings)}")
        library_loss = super().compute_loss_from_embeddings

        def of_embeddings(sides: list[torch.Tensor]) -> Any:
            return _multiple_negatives(self, sides) if _kernels_take(self) else library_loss(sides, labels)

        return self.sum_over_prefixes(of_embeddings, embeddings)


class CachedMultipleNegativesRankingLoss(_OnPrefixes, library.CachedMultipleNegativesRankingLoss):  # type: ignore[misc, unused-ignore]
    """sentence-transformers' class of this name, with its mini-batches for the model, and `info_nce_loss` over the whole batch."""

    def calculate_loss(
        self, reps: list[Column], labels: torch.Tensor | None = None, *, with_backward: bool = False
    ) -> torch.Tensor:
        """The loss of the embedded mini-batches of each column, sent back to them if `with_backward`."""
        library_loss = super().calculate_loss
        if self.prefixes is None and not _kernels_take(self):
            loss: torch.Tensor = library_loss(reps, labels, with_backward=with_backward)
            return loss

        def of_embeddings(sides: list[torch.Tensor]) -> Any:
            return _multiple_negatives(self, sides) if _kernels_take(self) else library_loss([[side] for side in sides], labels)

        return _sent_back(self.sum_over_prefixes(of_embeddings, [torch.cat(column) for column in reps]), with_backward)


class CachedGISTEmbedLoss(_OnPrefixes, library.CachedGISTEmbedLoss):  # type: ignore[misc, unused-ignore]
    """sentence-transformers' class of this name, with its mini-batches for the models, and products of matrices over the whole batch."""

    def calculate_loss(self, reps: list[Column], reps_guided: list[Column], *, with_backward: bool = False) -> torch.Tensor:
        """The loss of the embedded mini-batches of each column, sent back to them if `with_backward`."""
        if len(reps) != len(reps_guided):
            raise ValueError("reps and reps_guided must have the same length")
        guide_anchors, *guide_candidates = (torch.cat(column) for column in reps_guided)
        offset = 0
        if self.gather_across_devices:
            guide_candidates = [all_gather_with_grad(side) for side in guide_candidates]
            offset = get_rank() * len(guide_anchors)

        def of_embeddings(sides: list[torch.Tensor]) -> torch.Tensor:
            anchors, *candidates = sides
            return guided(
                anchors,
                [all_gather_with_grad(side) for side in candidates] if self.gather_across_devices else candidates,
                guide_anchors,
                guide_candidates,
                temperature=self.temperature,
                margin=self.margin,
                relative=self.margin_strategy == "relative",
                contrast_anchors=self.contrast_anchors,
                contrast_positives=self.contrast_positives,
                offset=offset,
            )

        return _sent_back(self.sum_over_prefixes(of_embeddings, [torch.cat(column) for column in reps]), with_backward)


def _sent_back(loss: torch.Tensor, with_backward: bool) -> torch.Tensor:
    if not with_backward:
        return loss
    loss.backward()  # type: ignore[no-untyped-call]  # PyTorch leaves it untyped
    return loss.detach()


class MatryoshkaLoss(library.MatryoshkaLoss):  # type: ignore[misc, unused-ignore]
    """sentence-transformers' class of this name; losses of this module read prefixes of the embeddings where they lie."""

    def __init__(
        self,
        model: Any,
        loss: torch.nn.Module,
        matryoshka_dims: Sequence[int],
        matryoshka_weights: Sequence[float] | Sequence[int] | None = None,
        n_dims_per_step: int = -1,
    ) -> None:
        super().__init__(model, loss, matryoshka_dims, matryoshka_weights, n_dims_per_step)
        if isinstance(loss, _OnPrefixes):
            vars(loss).pop("calculate_loss", None)  # the library has put one on the loss that copies the embeddings

    def forward(self, sentence_features: Iterable[dict[str, torch.Tensor]], labels: torch.Tensor) -> torch.Tensor:
        """The weighted sum of the loss over the prefixes, or over `n_dims_per_step` of them at random."""
        total: torch.Tensor
        inner: Any = self.loss
        if not isinstance(self.loss, _OnPrefixes):
            total = super().forward(sentence_features, labels)
            return total
        chosen: Sequence[int] = range(len(self.matryoshka_dims))
        if 0 < self.n_dims_per_step < len(chosen):
            chosen = sorted(random.sample(chosen, self.n_dims_per_step))
        inner.prefixes = [(self.matryoshka_dims[i], self.matryoshka_weights[i]) for i in chosen]
        try:
            total = inner(sentence_features, labels)
        finally:
            inner.prefixes = None
        return total
