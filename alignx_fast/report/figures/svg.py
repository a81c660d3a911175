"""Matplotlib figures as inline SVG with the page's colours and font, so that one drawing serves light and dark."""

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alignx_fast.evaluation.results import RUN_POINTS

WIDTH = 3.9  # inches; the page shows it at 300 to 430 pixels, one figure or two beside each other
LANGUAGE_COLOURS = [f"lang{i}" for i in range(8)]
NAMES = ["ink", "muted", "line", "page", *RUN_POINTS, "chance", *LANGUAGE_COLOURS]
COLOUR = {name: f"#00{i:02x}fe" for i, name in enumerate(NAMES)}
"""Colours to draw with: stand-ins that become the CSS variables `--before`, `--lang0`, ... of the page."""

STYLE: dict[Any, Any] = {  # matplotlib types the keys as literals of every style it knows
    "svg.fonttype": "none",  # text stays text: the browser's font, selectable
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": COLOUR["line"],
    "axes.labelcolor": COLOUR["muted"],
    "axes.titlecolor": COLOUR["ink"],
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.linewidth": 0.8,
    "axes.xmargin": 0.02,
    "grid.color": COLOUR["line"],
    "grid.linewidth": 0.5,
    "xtick.color": COLOUR["line"],
    "ytick.color": COLOUR["line"],
    "xtick.labelcolor": COLOUR["muted"],
    "ytick.labelcolor": COLOUR["muted"],
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
    "text.color": COLOUR["ink"],
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
}


def draw(name: str, title: str, paint: Callable[[Axes], None], height: float = 2.5) -> str:
    """One panel as an `<svg>` element; `name` is unique in the page, `paint` fills the axes, `height` is in inches."""
    with mpl.rc_context(STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title)
        paint(axes)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return inline(buffer.getvalue(), name, title)


def inline(document: str, name: str, title: str) -> str:
    """A matplotlib SVG document without prolog, metadata and fixed size, with ids of its own and the page's colours and font."""
    svg = document[document.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{name}-\1"', svg)
    svg = re.sub(r'(xlink:href="|url\()#', rf"\1#{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]+", "font-family: var(--font)", svg)
    for colour, code in COLOUR.items():
        svg = svg.replace(code, f"var(--{colour})")
    return svg
