"""The figures of the page: each function returns the SVG panels that the run has numbers for."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from alignx_fast.report.read import MOMENTS, Run
from alignx_fast.report.svg import COLOUR, draw

LOG = {"align": ("after_align", "stage 1"), "ntp_only": ("ntp_only", "L_ntp alone"), "instruct": ("after", "stage 2")}
"""Colour and short name of every stage of the log."""
LOSSES = {
    "loss": "whole loss L",
    "loss_ntp": "next-token prediction L_ntp",
    "loss_contrastive": "contrastive L_ctr",
    "loss_matching": "language matching L_lam",
}
MARKERS = "o^sDvPX*"
POINTS = 400  # of a curve: more than the page can show
BARS = 40  # groups of bars in one figure; beyond it, means by language
COLUMN = 12  # groups of bars in one panel; beyond it, two panels beside each other


def loss_curves(run: Run) -> list[str]:
    """A panel for every loss term of stage 1 (its control beside it), for stage 2, and for the gradient norm."""
    panels = [("Stage 1", ["align", "ntp_only"], list(LOSSES)), ("Stage 2", ["instruct"], ["loss_ntp"])]
    drawn = []
    for title, stages, terms in panels:
        if not any(line.get("loss_ntp") is not None for stage in stages for line in run.steps(stage)):
            terms = ["loss"]
        for term in terms:
            # The control minimises L_ntp: it has no other term, and its whole loss is another quantity.
            used = [stage for stage in stages if stage != "ntp_only" or term == "loss_ntp"]
            drawn += curves(run, f"loss-{used[0]}-{term}", f"{title}: {LOSSES[term]}", used, term, "nats")
    return drawn + curves(run, "gradient-norm", "Gradient norm before clipping", list(LOG), "grad_norm", "norm")


def curves(run: Run, name: str, title: str, stages: Sequence[str], key: str, unit: str) -> list[str]:
    """One panel of a logged number by step, dev values as rings; none where there are fewer than two steps."""
    lines = {stage: curve(run.steps(stage), key) for stage in stages}
    if not any(len(steps) > 1 for steps, _ in lines.values()):
        return []

    def paint(axes: Axes) -> None:
        for stage, (steps, values) in lines.items():
            axes.plot(steps, values, color=COLOUR[LOG[stage][0]], linewidth=1.2)
        for stage in stages:
            ring: dict[str, Any] = {"color": COLOUR["page"], "markeredgecolor": COLOUR[LOG[stage][0]], "markersize": 4.5}
            axes.plot(*curve(run.dev(stage), f"dev_{key}"), "o", **ring)
        axes.set_xlabel("optimizer step")
        axes.set_ylabel(unit)
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))

    return [draw(name, title, paint)]


def curve(lines: Sequence[dict[str, Any]], key: str) -> tuple[list[float], list[float]]:
    """(steps, values) of the lines that have a number under `key`, thinned to about `POINTS`."""
    points = [(line["step"], line[key]) for line in lines if isinstance(line.get(key), int | float)]
    points = points[:: max(1, len(points) // POINTS)]
    return [step for step, _ in points], [value for _, value in points]


def bars(name: str, title: str, unit: str, scores: dict[str, dict[str, float]], chance: float | None = None) -> list[str]:
    """Horizontal bars: a group for every key that any moment has, a bar for every moment. `scores`: moment -> key -> value."""
    scores = {when: values for when, values in scores.items() if values}
    keys = sorted({key for values in scores.values() for key in values})
    if not keys:
        return []
    reach = 1.04 * max(value for values in scores.values() for value in values.values()) or 1
    half = len(keys) if len(keys) <= COLUMN else -(-len(keys) // 2)
    thick = 0.8 / len(scores)

    def paint(axes: Axes, shown: Sequence[str]) -> None:
        for i, (when, values) in enumerate(scores.items()):
            places = [k + (i - (len(scores) - 1) / 2) * thick for k, key in enumerate(shown) if key in values]
            axes.barh(places, [values[key] for key in shown if key in values], height=thick * 0.9, color=COLOUR[when])
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


def both_ways(pairs: dict[str, float]) -> dict[str, float]:
    """Means over both directions of each pair of languages; means by language where these are too many to show."""
    found: dict[str, list[float]] = {}
    for pair, value in pairs.items():
        found.setdefault(" – ".join(sorted(pair.split("-"))) if pair.count("-") == 1 else pair, []).append(value)
    if len(found) > BARS:
        found = by_source(pairs)
    return {pair: sum(values) / len(values) for pair, values in found.items()}


def few(pairs: dict[str, float]) -> dict[str, float]:
    """The values themselves; means by source language where these are too many to show."""
    if len(pairs) <= BARS:
        return pairs
    return {source: sum(values) / len(values) for source, values in by_source(pairs).items()}


def by_source(pairs: dict[str, float]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for pair, value in pairs.items():
        found.setdefault(f"{pair.split('-')[0]} to all", []).append(value)
    return found


def layer_curves(run: Run) -> list[str]:
    """Similarity, its gap to unrelated sentences, retrieval and CKA by layer, one line for every moment."""
    layers = {
        when: scores["layers"]
        for when, scores in run.evaluation.items()
        if numbers((scores.get("layers") or {}).get("similarity"))
    }
    if not layers:
        return []
    align_layer = next(run.evaluation[when].get("align_layer") for when in layers)

    def frame(axes: Axes, label: str) -> None:
        if align_layer is not None:
            axes.axvline(align_layer, color=COLOUR["chance"], linewidth=1, linestyle=(0, (1, 2)))
        axes.set_xlabel("layer (0 = embeddings)")
        axes.set_ylabel(label)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))

    def cosine(axes: Axes) -> None:
        for when, values in layers.items():
            axes.plot(values["similarity"], color=COLOUR[when])
            axes.plot(values["unrelated"], color=COLOUR[when], linestyle=(0, (2, 2)), linewidth=1.2)
        frame(axes, "cosine")

    def gap(axes: Axes) -> None:
        for when, values in layers.items():
            difference = [a - b for a, b in zip(values["similarity"], values["unrelated"], strict=True)]
            axes.plot(difference, color=COLOUR[when])
        frame(axes, "difference of cosines")

    def single(axes: Axes, key: str, label: str, scale: float) -> None:
        for when, values in layers.items():
            if numbers(values.get(key)):
                axes.plot([value * scale for value in values[key]], color=COLOUR[when])
        frame(axes, label)

    drawn = [
        draw("layers-cosine", "Cosine: translations and unrelated", cosine),
        draw("layers-gap", "Translations minus unrelated", gap),
    ]
    for key, title, label, scale in (
        ("retrieval", "Retrieval top-1", "%", 100),
        ("cka", "Linear CKA between languages", "CKA", 1),
    ):
        if any(numbers(values.get(key)) for values in layers.values()):
            drawn.append(draw(f"layers-{key}", title, partial(single, key=key, label=label, scale=scale)))
    return drawn


def numbers(values: Any) -> bool:
    """Whether `values` is a list of numbers without gaps."""
    return isinstance(values, list) and bool(values) and all(isinstance(value, int | float) for value in values)


def maps(run: Run, languages: Sequence[str]) -> list[str]:
    """The plane of sentence vectors before and at the end, one colour and marker for each language."""
    found = [when for when in run.evaluation if (run.evaluation[when].get("map") or {}).get("points")]
    shown = [found[0], found[-1]] if len(found) > 1 else found
    planes = {when: run.evaluation[when]["map"] for when in shown}
    return [
        draw(f"map-{when}", MOMENTS[when].capitalize(), partial(scatter, plane=plane, languages=languages), 3.4)
        for when, plane in planes.items()
    ]


def scatter(axes: Axes, plane: dict[str, Any], languages: Sequence[str]) -> None:
    for i, language in enumerate(languages):
        points = [(point["x"], point["y"]) for point in plane["points"] if point["lang"] == language]
        colour, marker = language_mark(i)
        x, y = [x for x, _ in points], [y for _, y in points]
        axes.scatter(x, y, s=15, marker=marker, color=COLOUR[colour], alpha=0.8, linewidths=0)
    explained = plane.get("explained") or []
    axes.set_xlabel("first principal axis" + (f" ({explained[0]:.0%})" if explained else ""))
    axes.set_ylabel("second principal axis" + (f" ({explained[1]:.0%})" if len(explained) > 1 else ""))
    axes.margins(0.05)
    axes.set_aspect("equal", adjustable="datalim")


def language_mark(i: int) -> tuple[str, str]:
    """(colour, marker) of the i-th language: colours repeat after eight, with another marker."""
    return f"lang{i % 8}", MARKERS[(i // 8) % len(MARKERS)]
