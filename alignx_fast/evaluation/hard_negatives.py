"""Hard negatives of English sentences: the same sentence with one thing changed, so that it says something else. By rule, without any model.

Of each kind at most one is made of a sentence:

- causality: a negation is put in or taken out, or a word is replaced by its opposite;
- entity: a name, weekday or month is replaced by another (names by those of other sentences);
- number: a digit or a number word is replaced by another.

Source: the three kinds of xsim++, Chen et al. 2023 (arXiv 2306.12907), which has its own rules and makes more of each.
"""

import random
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple


class Kind(StrEnum):
    """What was changed."""

    CAUSALITY = "causality"
    ENTITY = "entity"
    NUMBER = "number"


class HardNegative(NamedTuple):
    """A changed sentence and the number of the sentence that it was made from."""

    sentence: int
    kind: Kind
    text: str


class Edit(NamedTuple):
    """Characters [start, end) of a sentence, and what could stand there instead."""

    start: int
    end: int
    options: tuple[str, ...]


OPPOSITES = (
    "more less|before after|increase decrease|increases decreases|increased decreased|increasing decreasing|first last|large small|"
    "larger smaller|largest smallest|big little|bigger smaller|biggest smallest|high low|higher lower|highest lowest|good bad|better worse|"
    "best worst|early late|earlier later|old new|older younger|oldest youngest|long short|longer shorter|strong weak|stronger weaker|"
    "hot cold|warm cool|fast slow|faster slower|open closed|opened closed|always never|most least|above below|inside outside|with without|"
    "start end|started ended|begin end|began ended|won lost|buy sell|bought sold|arrive leave|possible impossible|"
    "able unable|likely unlikely|legal illegal|north south|northern southern|east west|eastern western|male female|men women|man woman|"
    "day night|rise fall|rose fell|rising falling|accept reject|accepted rejected|support oppose|supported opposed|allow forbid|"
    "allowed forbidden|success failure|successful unsuccessful|safe dangerous|easy difficult|easily hardly|rich poor|maximum minimum|"
    "major minor|positive negative|public private|agreed refused|alive dead|near far|full empty|everyone nobody|everything nothing|"
    "often rarely|usually seldom|included excluded|including excluding|connected separated|appeared disappeared|remember forget|"
    "love hate|loved hated|true false|today yesterday|morning evening|summer winter|spring autumn"
)
OPPOSITE = {one: other for pair in OPPOSITES.split("|") for one, other in (pair.split(), pair.split()[::-1])}
WORD = re.compile(r"(?<![\w-])[A-Za-z]+(?:['’][a-z]+)?(?![\w-])")
AUXILIARY = r"(?:is|are|was|were|can|could|will|would|should|must|may|might|does|did)"
NEGATED = re.compile(rf"(\b{AUXILIARY}) ?not\b|\b(is|are|was|were|could|would|should|does|did)n['’]t\b")
PLAIN = re.compile(rf"\b{AUXILIARY}\b(?! ?not\b|n?['’])")

NUMBER = re.compile(r"(?<!\w)\d+(?:[.,]\d+)*(?!\w)")
NUMBER_WORDS = (
    "two three four five six seven eight nine ten eleven twelve",
    "twenty thirty forty fifty sixty seventy eighty ninety",
    "hundred thousand million billion",
    "hundreds thousands millions billions",
)

CAPITALISED = r"[A-Z][\w-]*(?:['’][A-Z][\w-]*)?"
NAME = re.compile(rf"{CAPITALISED}(?: (?:of )?{CAPITALISED})*")
DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
NO_NAMES = re.compile(r"I(?:['’]\w+)?|(?:Mr|Mrs|Ms|Dr|St)")


def hard_negatives(sentences: Mapping[int, str]) -> list[HardNegative]:
    """Hard negatives of numbered English sentences, at most one of a kind for each; the same at every call.

    None equals a sentence; a sentence in which a kind finds nothing to change has no negative of that kind.
    """
    pools = name_pools(sentences.values())
    rules: dict[Kind, Callable[[str], Iterable[Edit]]] = {
        Kind.CAUSALITY: causality_edits,
        Kind.ENTITY: lambda text: entity_edits(text, pools),
        Kind.NUMBER: number_edits,
    }
    taken, negatives = set(sentences.values()), []
    for number, text in sentences.items():
        for kind, edits in rules.items():
            changed = one_edit(text, kind, list(edits(text)))
            if changed is not None and changed not in taken:
                negatives.append(HardNegative(number, kind, changed))
    return negatives


def one_edit(text: str, kind: Kind, edits: list[Edit]) -> str | None:
    """The text with one of the edits made, drawn by a hash of the text; None without edits."""
    if not edits:
        return None
    draw = random.Random(zlib.crc32(f"{kind}\0{text}".encode()))
    edit = draw.choice(edits)
    return text[: edit.start] + draw.choice(edit.options) + text[edit.end :]


def causality_edits(text: str) -> Iterator[Edit]:
    """Opposites, and negations put in or taken out."""
    for word in WORD.finditer(text):
        is_name = word.group()[0].isupper() and word.start() > 0
        if not is_name and (opposite := OPPOSITE.get(word.group().lower())) is not None:
            yield Edit(*word.span(), (like(word.group(), opposite),))
    for negated in NEGATED.finditer(text):
        yield Edit(*negated.span(), (negated.group(1) or negated.group(2),))
    for plain in PLAIN.finditer(text):
        yield Edit(*plain.span(), ("cannot" if plain.group() == "can" else f"{plain.group()} not",))


def number_edits(text: str) -> Iterator[Edit]:
    """A digit of a number that stands by itself, and number words."""
    for number in NUMBER.finditer(text):
        for at in range(*number.span()):
            if text[at].isdigit():
                yield Edit(at, at + 1, tuple(other for other in "123456789" if other != text[at]))
    for word in WORD.finditer(text):
        for row in NUMBER_WORDS:
            if word.group().lower() in (words := row.split()):
                yield Edit(*word.span(), tuple(like(word.group(), other) for other in words if other != word.group().lower()))


def entity_edits(text: str, pools: Mapping[str, tuple[str, ...]]) -> Iterator[Edit]:
    """Every name with the names of the same form that do not stand in the sentence."""
    for name in names(text):
        options = tuple(other for other in pools[form(name.group())] if other not in text)
        if options:
            yield Edit(*name.span(), options)


def name_pools(sentences: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """All names of the sentences by their form, and all weekdays and months."""
    pools: dict[str, set[str]] = {"day": set(DAYS), "month": set(MONTHS)}
    for text in sentences:
        for name in names(text):
            pools.setdefault(form(name.group()), set()).add(name.group())
    return {key: tuple(sorted(pool)) for key, pool in pools.items()}


def names(text: str) -> Iterator[re.Match[str]]:
    """Runs of capitalised words within a sentence; what opens one is left out, since every word is capitalised there."""
    for name in NAME.finditer(text):
        opens = name.start() == 0 or re.search(r"[.!?:…\"“”‘'(]\s*$", text[: name.start()])
        if not opens and not NO_NAMES.fullmatch(name.group()):
            yield name


def form(name: str) -> str:
    """Names of equal form may replace each other: weekdays, months, acronyms, and others by their number of words."""
    if name in DAYS:
        return "day"
    if name in MONTHS:
        return "month"
    return "acronym" if name.isupper() else f"{len(name.split())} words"


def like(model: str, word: str) -> str:
    """The word with a capital where the model has one."""
    return word.capitalize() if model[:1].isupper() else word
