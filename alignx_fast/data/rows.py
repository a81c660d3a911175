"""What a row is: the types that readers yield and every later step takes."""

import enum
from collections import Counter
from dataclasses import dataclass, field

from alignx_fast.data.characters import escaped


class Reason(enum.StrEnum):
    """Why a row cannot be used."""

    EMPTY = "empty text"
    SAME = "same text on both sides"
    DUPLICATE = "duplicate"
    LANGUAGE = "language not selected"
    EVALUATION = "in the evaluation set"
    TRUNCATED = "cut off by max_length"
    UNKNOWN = "unknown to the tokenizer"
    SPECIAL = "special token in the text"
    BROKEN = "control characters or broken Unicode"
    TWICE = "language named twice in one row"
    HELD_OUT = "shares a text or group with held-out rows"
    RESERVED = "kept for the evaluation"
    MAX_ROWS = "beyond max_rows"
    SHARE = "not needed for translation_share"


@dataclass(frozen=True, slots=True)
class Pair:
    """One translation pair."""

    src_lang: str
    tgt_lang: str
    src: str
    tgt: str
    group: str | None = None
    """Rows of equal group say the same thing."""
    where: str = ""
    """"file:line", for messages and the list of dropped rows."""

    @property
    def text(self) -> str:
        """All of it in one line, for that list."""
        return f"{self.src} | {self.tgt}"


@dataclass(frozen=True, slots=True)
class Instruction:
    """One task with its answer."""

    instruction: str
    input: str
    output: str
    lang: str | None = None
    where: str = ""
    group: str | None = None
    """The same as in `Pair`: an instruction about a held-out sentence is held out too."""

    @property
    def text(self) -> str:
        """All of it in one line, for the list of dropped rows."""
        return f"{self.instruction} | {self.input} | {self.output}"


@dataclass(frozen=True, slots=True)
class Meaning:
    """One sentence in several languages."""

    id: str
    texts: dict[str, str]


@dataclass(frozen=True, slots=True)
class Dropped:
    """A row that cannot be used, and why."""

    reason: Reason
    text: str
    """Safe to print and to write: characters that are no text are written out."""
    where: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "text", escaped(self.text))  # the class is frozen
        object.__setattr__(self, "where", escaped(self.where))  # a file's name may be no text either


@dataclass
class DroppedRows:
    """The rows that are not used: how many for each reason, and the text of those that somebody may want to look at."""

    counts: Counter[Reason] = field(default_factory=Counter)
    listed: list[Dropped] = field(default_factory=list)

    def add(self, row: Dropped) -> None:
        """Count a row and keep its text, unless it is in a language that was not asked for: of those there may be millions."""
        self.counts[row.reason] += 1
        if row.reason is not Reason.LANGUAGE:
            self.listed.append(row)

    def count(self, reason: Reason, rows: int) -> None:
        """Count rows that nothing is wrong with."""
        if rows:
            self.counts[reason] += rows

    def extend(self, rows: "DroppedRows") -> None:
        """Add what another one holds."""
        for reason, number in rows.counts.items():
            self.count(reason, number)
        self.listed += rows.listed

    def by_reason(self) -> dict[str, int]:
        """Rows by reason, the most frequent first."""
        return {str(reason): rows for reason, rows in self.counts.most_common()}
