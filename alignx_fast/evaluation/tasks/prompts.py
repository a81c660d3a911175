"""Prompts and choices of the local tasks.

Every row carries the words of its language, which stand in the task files. Blanks at the borders of prompts, words and choices are meant.
"""

import re
from collections.abc import Mapping

Row = Mapping[str, str]
FULL_STOPS = ".。!?！？ "
DETACHED = re.compile(r" (?=[,.)])|(?<=\() ")
"""Blanks that a tokenizer of English put around punctuation."""


def lower_first(text: str, lang: str) -> str:
    """The text as it goes on inside of a sentence."""
    first = {"I": "ı", "İ": "i"}.get(text[:1]) if lang == "tr" else None  # Turkish has two letters i
    return (first or text[:1].lower()) + text[1:]


def xcopa_prompt(row: Row) -> str:
    """The premise, up to the word that asks for its cause or its effect."""
    return row["premise"].rstrip(FULL_STOPS) + (row["because"] if row["question"] == "cause" else row["therefore"])


def xcopa_choices(row: Mapping[str, list[str]]) -> list[str]:
    """Both ends of the sentence."""
    return [lower_first(choice.strip(), str(row["lang"])) for choice in row["choices"]]


def pawsx_prompt(row: Row) -> str:
    """The first sentence, asked for being right."""
    return DETACHED.sub("", row["sentence1"]).rstrip(FULL_STOPS) + row["right"]


def pawsx_choices(row: Row) -> list[str]:
    """The second sentence as what is meant instead (label 0), or as the same again (label 1)."""
    second = DETACHED.sub("", row["sentence2"])
    return [row["no"] + second, row["yes"] + second]


def question_prompt(row: Row) -> str:
    """A question alone, as in MGSM and JCommonsenseQA."""
    return f"{row['question_word']}{row['question'].strip()}\n{row['answer_word']}"


def xquad_prompt(row: Row) -> str:
    """A question below the passage that answers it."""
    return f"{row['context'].strip()}\n\n{question_prompt(row)}"


def jnli_prompt(row: Row) -> str:
    """Two sentences, asked for how they relate."""
    return f"{row['premise_word']}{row['premise']}\n{row['hypothesis_word']}{row['hypothesis']}\n{row['answer_word']}"
