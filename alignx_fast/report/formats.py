"""Numbers and names as the page writes them."""

import math
from collections.abc import Callable, Sequence


def percent(share: float) -> str:
    """A share from 0 to 1, with more digits where it is small."""
    return f"{100 * share:.2f} %" if share < 0.01 else f"{100 * share:.1f} %"


def decimal(value: float) -> str:
    """One digit after the point, none for large values."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}"


def three_decimals(value: float) -> str:
    """Three digits after the point."""
    return f"{value:.3f}"


def whole(value: float) -> str:
    """No digits after the point, thousands separated."""
    return f"{value:,.0f}"


def or_dash(value: float | None, show: Callable[[float], str]) -> str:
    """A dash for what is missing or not finite."""
    return "—" if value is None or not math.isfinite(value) else show(value)


def first_to_last(values: Sequence[float]) -> str:
    """How a series began and ended."""
    return f"{values[0]:.3f} → {values[-1]:.3f}" if values else "—"


def spaced(name: str) -> str:
    """A key as words."""
    return name.replace("_", " ")


def plain(value: object) -> str:
    """A number with separated thousands, a list in a row, anything else as it is."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "—" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
