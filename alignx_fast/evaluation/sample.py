"""Which of the held-out sentences are used: neighbours in a corpus are often variants of each other, so take them from all over."""

from collections.abc import Sequence
from typing import TypeVar

from alignx_fast.data.rows import Meaning

Item = TypeVar("Item")


def evenly(items: Sequence[Item], count: int) -> list[Item]:
    """At most `count` items at even distances, in order; the same for every call."""
    count = min(count, len(items))
    return [items[i * len(items) // count] for i in range(count)]


def choose_meanings(meanings: Sequence[Meaning], languages: Sequence[str], count: int) -> list[Meaning]:
    """At most `count` meanings: from all over those that exist in every language, or else those in most languages."""
    complete = [meaning for meaning in meanings if all(meaning.texts.get(code, "").strip() for code in languages)]
    if len(complete) >= count:
        return evenly(complete, count)
    return sorted(meanings, key=lambda meaning: -sum(code in meaning.texts for code in languages))[:count]
