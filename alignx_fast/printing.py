"""Text that is printed for people: what a terminal would obey is written out."""

import re

OBEYED = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters but tab and line feed, other line breaks, what reorders a line, and halves of Unicode pairs, which cannot be printed."""


def printable(text: str) -> str:
    r"""The text with such characters written out, such as `\x1b`."""
    return OBEYED.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def one_line(text: str) -> str:
    """The same in a single line: every row of line breaks and tabs is a blank."""
    return printable(re.sub(r"[\t\n\x0b\x0c\r\x85\u2028\u2029]+", " ", text)).strip()
