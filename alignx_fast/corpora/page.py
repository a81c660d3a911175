"""The data card as a page: one file without scripts that refers to nothing outside itself."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib as mpl
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from alignx_fast.files import write_text

PAGE_FILE = "card.html"
INK, KEPT, DROPPED = "#444", "#2a78d6", "#d9d9d6"
MOST_BARS = 60
STYLE: dict[Any, Any] = {"svg.fonttype": "none", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


def write_page(card: Mapping[str, Any], folder: Path) -> Path:
    """Write card.html beside card.json."""
    environment = Environment(
        loader=PackageLoader("alignx_fast", "corpora"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    plots = [*_counts("Pairs with the language", card["languages"]), *_counts("Pairs by direction", card["directions"])]
    page = environment.get_template("card.html.j2").render(
        name=folder.name, card=card, plots=plots, lengths=_lengths(card["lengths"]), medians=medians(card["lengths"])
    )
    path = folder / PAGE_FILE
    write_text(path, page)
    return path


def medians(lengths: Mapping[str, Mapping[str, int]]) -> dict[str, int]:
    """The bin in which the middle sentence of each language lies, in characters."""
    found = {}
    for language, bins in sorted(lengths.items()):
        half, seen = sum(bins.values()) / 2, 0
        for start, rows in sorted((int(start), rows) for start, rows in bins.items()):
            seen += rows
            if seen >= half:
                found[language] = start
                break
    return found


def _counts(title: str, counts: Mapping[str, Mapping[str, int]]) -> list[Markup]:
    """Bars of what was read, the kept part in colour; the largest first, on a logarithmic scale."""
    shown = sorted(counts.items(), key=lambda item: -item[1]["read"])[:MOST_BARS]
    if not shown:
        return []
    names = [name for name, _ in shown]
    with mpl.rc_context(STYLE | {"svg.hashsalt": title}):
        figure = Figure(figsize=(6, 0.9 + 0.19 * len(shown)), layout="constrained")
        axes = figure.add_subplot()
        axes.barh(names, [count["read"] for _, count in shown], color=DROPPED, label="read")
        axes.barh(names, [count["kept"] for _, count in shown], color=KEPT, height=0.5, label="kept")
        axes.set_xscale("symlog", linthresh=10)
        axes.invert_yaxis()
        axes.set_title(f"{title}{f' (the {MOST_BARS} largest)' if len(counts) > MOST_BARS else ''}", loc="left", color=INK)
        axes.legend(frameon=False, loc="lower right", bbox_to_anchor=(1, 1), ncols=2)
        return [_svg(figure)]


def _lengths(lengths: Mapping[str, Mapping[str, int]]) -> list[Markup]:
    """Sentences by length, a line for each of the commonest languages."""
    common = sorted(lengths, key=lambda language: -sum(lengths[language].values()))[:8]
    if not common:
        return []
    with mpl.rc_context(STYLE | {"svg.hashsalt": "lengths"}):
        figure = Figure(figsize=(6, 3), layout="constrained")
        axes = figure.add_subplot()
        for language in common:
            bins = sorted((int(start), rows) for start, rows in lengths[language].items() if int(start) < 400)
            total = sum(lengths[language].values())
            axes.plot([start for start, _ in bins], [100 * rows / total for _, rows in bins], label=language, linewidth=1.3)
        axes.set_xlabel("characters")
        axes.set_ylabel("% of sentences")
        axes.set_title("Length of sentences", loc="left", color=INK)
        axes.legend(frameon=False, ncols=2)
        return [_svg(figure)]


def _svg(figure: Figure) -> Markup:
    """The figure as an element; its texts are language codes, which matplotlib escapes."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])
