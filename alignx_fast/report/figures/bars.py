"""Scores by pair of languages as horizontal bars."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from matplotlib.axes import Axes

from alignx_fast.evaluation.results import DirectionTranslation, EvaluatedAt
from alignx_fast.report.figures.svg import COLOUR, draw
from alignx_fast.report.read import Evaluations

MAX_GROUPS = 40  # groups of bars in one figure; beyond it, means by language
MAX_GROUPS_PER_PANEL = 12  # beyond it, two panels beside each other

Bars = Mapping[str, float]
"""Length of a bar by the name of its group."""


def retrieval_bars(evaluations: Evaluations, chance: float | None) -> list[str]:
    """Retrieval by unordered pair of languages, in percent."""
    scores = {
        at: means_over_both_directions({key: 100 * pair.top1 for key, pair in evaluation.retrieval.pairs.items()})
        for at, evaluation in evaluations.items()
    }
    return bars("retrieval", "Retrieval top-1", "%", scores, None if chance is None else 100 * chance)


def translation_bars(evaluations: Evaluations) -> list[str]:
    """chrF++ and BLEU by direction."""

    def scores(score: Callable[[DirectionTranslation], float]) -> dict[EvaluatedAt, Bars]:
        return {
            at: means_if_many({key: score(direction) for key, direction in evaluation.translation.items()})
            for at, evaluation in evaluations.items()
        }

    return [
        *bars("chrf", "chrF++", "chrF++", scores(lambda direction: direction.chrf)),
        *bars("bleu", "BLEU", "BLEU", scores(lambda direction: direction.bleu)),
    ]


def bars(name: str, title: str, unit: str, scores: Mapping[EvaluatedAt, Bars], chance: float | None = None) -> list[str]:
    """A group of bars for every key that any point has, with a bar for every point."""
    scores = {at: values for at, values in scores.items() if values}
    keys = sorted({key for values in scores.values() for key in values})
    if not keys:
        return []
    reach = 1.04 * max(value for values in scores.values() for value in values.values()) or 1
    half = len(keys) if len(keys) <= MAX_GROUPS_PER_PANEL else -(-len(keys) // 2)
    thickness = 0.8 / len(scores)

    def paint(axes: Axes, shown: Sequence[str]) -> None:
        for i, (at, values) in enumerate(scores.items()):
            places = [k + (i - (len(scores) - 1) / 2) * thickness for k, key in enumerate(shown) if key in values]
            axes.barh(places, [values[key] for key in shown if key in values], height=thickness * 0.9, color=COLOUR[at])
        if chance is not None:
            axes.axvline(chance, color=COLOUR["chance"], linewidth=1, linestyle=(0, (3, 2)))
        axes.set_yticks(range(len(shown)), shown)
        axes.set_ylim(half - 0.4, -0.6)
        axes.set_xlim(0, reach)
        axes.set_xlabel(unit)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)

    height = 0.75 + half * max(0.17, 0.075 * len(scores) + 0.07)
    parts = [keys[:half], keys[half:]]
    return [
        draw(f"{name}-{i}", title if i == 0 else f"{title}, continued", partial(paint, shown=part), height)
        for i, part in enumerate(parts)
        if part
    ]


def means_over_both_directions(pairs: Bars) -> Bars:
    """Means over both directions of each pair of languages; means by language where these are too many to show."""
    groups: dict[str, list[float]] = {}
    for pair, value in pairs.items():
        groups.setdefault(" – ".join(sorted(pair.split("-"))) if pair.count("-") == 1 else pair, []).append(value)
    return means(groups) if len(groups) <= MAX_GROUPS else means_by_source(pairs)


def means_if_many(pairs: Bars) -> Bars:
    """The values themselves; means by source language where these are too many to show."""
    return pairs if len(pairs) <= MAX_GROUPS else means_by_source(pairs)


def means_by_source(pairs: Bars) -> Bars:
    """Means over all targets of each source language."""
    groups: dict[str, list[float]] = {}
    for pair, value in pairs.items():
        groups.setdefault(f"{pair.split('-')[0]} to all", []).append(value)
    return means(groups)


def means(groups: Mapping[str, Sequence[float]]) -> Bars:
    return {name: sum(values) / len(values) for name, values in groups.items()}
