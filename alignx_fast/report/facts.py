"""What was recorded about data and environment, whatever it holds, as facts and tables."""

from collections.abc import Mapping
from dataclasses import dataclass

from alignx_fast.report.formats import plain, spaced

Facts = list[tuple[str, str]]


@dataclass(frozen=True)
class FactTable:
    """Counts by name."""

    title: str
    headings: list[str]
    rows: list[list[str]]


def data_facts(summary: Mapping[str, object]) -> tuple[Facts, list[FactTable]]:
    """A data summary as single facts and as tables; train and dev counts stand side by side."""
    sides = {side: counts for side in ("train", "dev") if isinstance(counts := summary.get(side), dict)}
    facts, tables = [], [groups_as_columns("counts", sides)] if sides else []
    for key, value in summary.items():
        if key == "stage" or key in sides:
            continue
        if not isinstance(value, dict):
            facts.append((spaced(key), plain(value)))
        elif any(isinstance(inner, dict) for inner in value.values()):
            tables.append(groups_as_rows(spaced(key), value))
        else:
            tables.append(groups_as_columns(spaced(key), {"rows": value}))
    return facts, tables


def prepared_facts(cards: Mapping[str, object]) -> tuple[Facts, list[FactTable]]:
    """The data cards of prepared folders as tables: what was kept, and what was dropped why."""
    known = {path: card for path, card in cards.items() if isinstance(card, dict)}
    kept = {
        path: {**group(card, "rows"), **group(card, "leak"), "fingerprint": card.get("fingerprint")}
        for path, card in known.items()
    }
    dropped = {path: group(card, "dropped") for path, card in known.items()}
    tables = [groups_as_rows("folder", kept), groups_as_columns("dropped before", dropped)]
    return [("data card", "card.html in each folder")], tables


def group(card: Mapping[str, object], name: str) -> Mapping[str, object]:
    """A group of counts; empty where it is missing."""
    value = card.get(name)
    return value if isinstance(value, dict) else {}


def groups_as_rows(title: str, groups: Mapping[str, Mapping[str, object]]) -> FactTable:
    """Counts by group and name, a row for each group."""
    names = names_of(groups)
    rows = [[group, *(plain(counts.get(name)) for name in names)] for group, counts in groups.items()]
    return FactTable(title, [spaced(name) for name in names], rows)


def groups_as_columns(title: str, groups: Mapping[str, Mapping[str, object]]) -> FactTable:
    """Counts by group and name, a column for each group."""
    rows = [[spaced(name), *(plain(counts.get(name)) for counts in groups.values())] for name in names_of(groups)]
    return FactTable(title, list(groups), rows)


def names_of(groups: Mapping[str, Mapping[str, object]]) -> list[str]:
    """The names that any group counts, in order of first appearance."""
    return list(dict.fromkeys(name for counts in groups.values() for name in counts))


def flat(tree: Mapping[str, object], prefix: str = "") -> Facts:
    """Nested objects as (dotted name, value)."""
    facts: Facts = []
    for key, value in tree.items():
        if isinstance(value, dict):
            facts += flat(value, f"{prefix}{key}.")
        else:
            facts.append((prefix + key, plain(value)))
    return facts
