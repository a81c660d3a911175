"""Which languages and held-out sentences are used.

Neighbours in a corpus are often variants of each other, so sentences are taken from all over.
"""

import difflib
from collections.abc import Sequence
from typing import TypeVar

from alignx_fast.data.languages import check_language
from alignx_fast.data.rows import Meaning
from alignx_fast.errors import UserError

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


def wanted_languages(meanings: Sequence[Meaning], languages: Sequence[str] | None) -> list[str]:
    """The languages asked for, each once, or else all that the meanings have."""
    if languages is not None:
        return list(dict.fromkeys(map(check_language, languages)))
    return sorted({code for meaning in meanings for code in meaning.texts})


def require_languages(meanings: Sequence[Meaning], asked: Sequence[str]) -> None:
    """Refuse languages that were asked for by name and that no held-out sentence is in.

    Raises:
        UserError: there is one; the nearest that exist are offered.
    """
    known = sorted({code for meaning in meanings for code, text in meaning.texts.items() if text.strip()})
    for code in map(check_language, asked):
        if code not in known:
            near = difflib.get_close_matches(code, known, n=3, cutoff=0.4)
            offer = f"the nearest are {', '.join(near)}" if near else f"there are {', '.join(known)}"
            raise UserError(f"evaluation.languages names {code}, and no held-out sentence is in it; {offer}.")


def languages_with_text(meanings: Sequence[Meaning], wanted: Sequence[str]) -> list[str]:
    """Those of the wanted languages in which any meaning has text.

    Raises:
        UserError: there are none.
    """
    codes = [code for code in wanted if any(meaning.texts.get(code, "").strip() for meaning in meanings)]
    if not codes:
        raise UserError(
            f"There are no held-out sentences in {', '.join(wanted) or 'any language'} to evaluate on: "
            "give some with `data.evaluation` or switch evaluation off with `evaluation.enabled: false`."
        )
    return codes
