"""Sentence vectors on a plane."""

from collections.abc import Sequence
from functools import partial

from matplotlib.axes import Axes

from alignx_fast.evaluation.results import SentenceMap
from alignx_fast.report.figures.svg import COLOUR, LANGUAGE_COLOURS, draw
from alignx_fast.report.labels import POINT_TITLES
from alignx_fast.report.read import Evaluations

MARKERS = {"o": "●", "^": "▲", "s": "■", "D": "◆", "v": "▼", "P": "✚", "X": "✖", "*": "★"}
"""matplotlib's markers, and the characters that stand for them in the legend."""


def sentence_maps(evaluations: Evaluations, languages: Sequence[str]) -> list[str]:
    """The plane of sentence vectors before and at the end, one colour and marker for each language."""
    drawable = [at for at, evaluation in evaluations.items() if evaluation.map.points]
    shown = [drawable[0], drawable[-1]] if len(drawable) > 1 else drawable
    return [
        draw(
            f"map-{at}",
            POINT_TITLES[at].capitalize(),
            partial(scatter, plane=evaluations[at].map, languages=languages),
            height=3.4,
        )
        for at in shown
    ]


def scatter(axes: Axes, plane: SentenceMap, languages: Sequence[str]) -> None:
    """The sentences of one map."""
    for i, language in enumerate(languages):
        points = [point for point in plane.points if point.lang == language]
        colour, marker = language_mark(i)
        x, y = [point.x for point in points], [point.y for point in points]
        axes.scatter(x, y, s=15, marker=marker, color=COLOUR[colour], alpha=0.8, linewidths=0)
    shares = [f" ({share:.0%})" for share in plane.explained] + ["", ""]
    axes.set_xlabel("first principal axis" + shares[0])
    axes.set_ylabel("second principal axis" + shares[1])
    axes.margins(0.05)
    axes.set_aspect("equal", adjustable="datalim")


def map_legend(languages: Sequence[str]) -> list[tuple[str, str, str]]:
    """(language, colour, character) for every language."""
    marks = [language_mark(i) for i in range(len(languages))]
    return [(language, colour, MARKERS[marker]) for language, (colour, marker) in zip(languages, marks, strict=True)]


def language_mark(i: int) -> tuple[str, str]:
    """(colour, marker) of the i-th language: colours repeat after eight, with another marker."""
    colour, marker = i % len(LANGUAGE_COLOURS), i // len(LANGUAGE_COLOURS) % len(MARKERS)
    return LANGUAGE_COLOURS[colour], list(MARKERS)[marker]
