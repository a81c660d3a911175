"""How many rows each language and direction gets of a given number."""

from collections.abc import Hashable, Mapping
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)
Cell = tuple[str, str]
"""A language and a direction that counts for it."""


def shares(sizes: Mapping[Cell, int], total: int, language_temperature: float, direction_temperature: float) -> dict[Cell, int]:
    """Rows of every cell: languages share `total` as n^(1/T), and each language's directions share its rows in the same way.

    None gets more than it has; what is left over goes to the others.
    """
    languages: dict[str, int] = {}
    for (language, _), rows in sizes.items():
        languages[language] = languages.get(language, 0) + rows
    found: dict[Cell, int] = {}
    for language, rows in shared_out(languages, total, language_temperature).items():
        own = {cell: size for cell, size in sizes.items() if cell[0] == language}
        found |= shared_out(own, rows, direction_temperature)
    return found


def shared_out(sizes: Mapping[Name, int], total: int, temperature: float) -> dict[Name, int]:
    """At most `total` rows in shares proportional to size^(1/temperature), none above its size; whole numbers, largest remainders first."""
    left = min(total, sum(sizes.values()))
    open_, found = dict(sizes), dict.fromkeys(sizes, 0)
    while True:  # fill those whose share exceeds what they have, and share the rest among the others
        weight = sum(size ** (1 / temperature) for size in open_.values())
        full = [name for name, size in open_.items() if left * size ** (1 / temperature) >= size * weight]
        if not full or not weight:
            break
        for name in full:
            found[name] = open_.pop(name)
            left -= found[name]
    exact = {name: left * size ** (1 / temperature) / weight for name, size in open_.items()} if weight else {}
    found |= {name: int(share) for name, share in exact.items()}
    rest = left - sum(int(share) for share in exact.values())
    for name in sorted(exact, key=lambda name: (int(exact[name]) - exact[name], str(name)))[:rest]:
        found[name] += 1
    return found
