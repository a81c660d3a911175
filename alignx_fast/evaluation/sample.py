"""Which languages and held-out sentences are used.

Neighbours in a corpus are often variants of each other, so sentences are taken from all over.
"""

import difflib
from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from transformers import PreTrainedTokenizerBase

from alignx_fast.data.languages import check_language
from alignx_fast.data.rows import Instruction, Meaning
from alignx_fast.data.spans import as_text
from alignx_fast.data.templates import Template
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


def meanings_as_text(
    meanings: Sequence[Meaning], tokenizer: PreTrainedTokenizerBase, template: Template
) -> tuple[list[Meaning], list[str]]:
    """Meanings none of whose texts becomes a control token, and a note where a blank had to be put into some for that."""
    before = [text for meaning in meanings for text in meaning.texts.values()]
    after = as_text(tokenizer, template, before)
    texts = iter(after)
    kept = [replace(meaning, texts={code: next(texts) for code in meaning.texts}) for meaning in meanings]
    changed = sum(old != new for old, new in zip(before, after, strict=True))
    note = f"{changed} held-out texts spell out control tokens of the tokenizer: they are read as text, with a blank within."
    return kept, [note] if changed else []


def instructions_as_text(
    instructions: Sequence[Instruction], tokenizer: PreTrainedTokenizerBase, template: Template
) -> list[Instruction]:
    """The same for instructions."""
    names = ("instruction", "input", "output")
    texts = iter(as_text(tokenizer, template, [getattr(row, name) for row in instructions for name in names]))
    return [replace(row, **{name: next(texts) for name in names}) for row in instructions]
