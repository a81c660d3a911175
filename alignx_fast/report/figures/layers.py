"""Scores by layer."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeGuard

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from alignx_fast.evaluation.results import EvaluatedAt, LayerScores
from alignx_fast.report.figures.svg import COLOUR, draw
from alignx_fast.report.read import Evaluations


def layer_curves(evaluations: Evaluations) -> list[str]:
    """Similarity, its gap to unrelated sentences, retrieval and CKA by layer, one line for every point."""
    scored = {
        at: evaluation
        for at, evaluation in evaluations.items()
        if complete(evaluation.layers.similarity) and complete(evaluation.layers.unrelated)
    }
    if not scored:
        return []
    layers = {at: evaluation.layers for at, evaluation in scored.items()}
    align_layer = next(evaluation.align_layer for evaluation in scored.values())

    def panel(name: str, title: str, unit: str, paint: Callable[[Axes], None]) -> str:
        return draw(name, title, partial(with_frame, paint=paint, align_layer=align_layer, unit=unit))

    related, unrelated = curves(layers, lambda scores: scores.similarity), curves(layers, lambda scores: scores.unrelated)
    gaps = {at: [a - b for a, b in zip(related[at], unrelated[at], strict=True)] for at in layers}
    panels = [
        panel(
            "layers-cosine",
            "Cosine: translations and unrelated",
            "cosine",
            partial(cosines, related=related, unrelated=unrelated),
        ),
        panel("layers-gap", "Translations minus unrelated", "difference of cosines", partial(lines, values=gaps)),
    ]
    if retrieval := curves(layers, lambda scores: scores.retrieval, scale=100):
        panels.append(panel("layers-retrieval", "Retrieval top-1", "%", partial(lines, values=retrieval)))
    if cka := curves(layers, lambda scores: scores.cka):
        panels.append(panel("layers-cka", "Linear CKA between languages", "CKA", partial(lines, values=cka)))
    return panels


def complete(values: Sequence[float | None]) -> TypeGuard[Sequence[float]]:
    """Whether there is a value for every layer."""
    return bool(values) and None not in values


def curves(
    layers: Mapping[EvaluatedAt, LayerScores], score: Callable[[LayerScores], Sequence[float | None]], scale: float = 1
) -> dict[EvaluatedAt, list[float]]:
    """One score at the points that have it for every layer."""
    return {at: [value * scale for value in values] for at, scores in layers.items() if complete(values := score(scores))}


def lines(axes: Axes, values: Mapping[EvaluatedAt, Sequence[float]]) -> None:
    """A line for every point."""
    for at, by_layer in values.items():
        axes.plot(by_layer, color=COLOUR[at])


def cosines(axes: Axes, related: Mapping[EvaluatedAt, Sequence[float]], unrelated: Mapping[EvaluatedAt, Sequence[float]]) -> None:
    """Translations as lines, unrelated sentences as broken lines."""
    for at in related:
        axes.plot(related[at], color=COLOUR[at])
        axes.plot(unrelated[at], color=COLOUR[at], linestyle=(0, (2, 2)), linewidth=1.2)


def with_frame(axes: Axes, paint: Callable[[Axes], None], align_layer: int | None, unit: str) -> None:
    """What `paint` draws, the align layer and the labels of the axes."""
    paint(axes)
    if align_layer is not None:
        axes.axvline(align_layer, color=COLOUR["chance"], linewidth=1, linestyle=(0, (1, 2)))
    axes.set_xlabel("layer (0 = embeddings)")
    axes.set_ylabel(unit)
    axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
