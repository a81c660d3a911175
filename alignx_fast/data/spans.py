"""Rendered text to tokens, with the source and the target sentence as spans of token positions."""

from typing import TypedDict


class Example(TypedDict):
    """One row as the model sees it."""

    input_ids: list[int]
    prompt_length: int
    """Tokens before the response."""
    source: list[int]
    """[start, end) of the source sentence's tokens; [0, 0] for a general instruction."""
    target: list[int]
    """[start, end) of the target sentence's tokens, without the end token; [0, 0] for a general instruction."""
    src_lang: int
    """Index into the data's sorted list of languages; -1 unknown."""
    tgt_lang: int
    meaning: int
    """Equal numbers say the same thing: such rows are never negatives of each other."""
