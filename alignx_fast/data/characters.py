"""Characters that are no text: control characters, which a tokenizer or a terminal obeys, and halves of Unicode pairs, which no file can hold."""

import re

NO_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")


def is_broken(text: str) -> bool:
    r"""Whether a text holds such a character; tabs and line breaks, \x85 among them, are text."""
    return NO_TEXT.search(text) is not None


def escaped(text: str) -> str:
    r"""The text with such characters written out, such as `\x1b`: safe to print and to write."""
    return NO_TEXT.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def without_broken(text: str) -> str:
    """The text with a blank in the place of every such character."""
    return NO_TEXT.sub(" ", text)
