"""Texts through a tokenizer's Rust core, and the control tokens that no text may become.

A tokenizer reads control tokens not only where its special ones are asked for: a Unigram vocabulary has `</s>` as a piece like any other, and
added tokens that are not marked as special, such as `<think>`, are read everywhere.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tokenizers import Encoding, Tokenizer
from transformers import PreTrainedTokenizerBase

from alignx_fast.errors import UserError

MARK = re.compile(r"[^\w\s].*[^\W\d_].*[^\w\s]", re.DOTALL)
"""An added token between signs, such as <think> or [INST]; others are words or blanks that the vocabulary was enlarged by."""
BYTE = re.compile("<0x[0-9A-F]{2}>")
"""The token of a byte; in a Unigram vocabulary six characters of a text can become one."""


def encode_core(tokenizer: PreTrainedTokenizerBase, texts: list[str], *, read_special_tokens: bool) -> list[Encoding]:
    """All texts through the tokenizer's Rust core, on all threads, nothing added, padded or cut.

    Raises:
        UserError: the tokenizer is not a fast one.
    """
    if not tokenizer.is_fast:
        raise UserError(
            f"{type(tokenizer).__name__} is a slow tokenizer without character offsets. Use a fast one (tokenizer.json)."
        )
    with _plain(tokenizer, read_special_tokens) as core:
        encodings: list[Encoding] = core.encode_batch(texts, add_special_tokens=False)
    return encodings


@contextmanager
def _plain(tokenizer: PreTrainedTokenizerBase, read_special_tokens: bool) -> Iterator[Tokenizer]:
    """The Rust core without truncation and padding; with `read_special_tokens` off, "<s>" in a text is four characters.

    Truncation and padding need no restoring: transformers sets both on each of its own calls.
    """
    core: Tokenizer = tokenizer.backend_tokenizer
    before = core.encode_special_tokens
    core.no_truncation()
    core.no_padding()
    core.encode_special_tokens = not read_special_tokens
    try:
        yield core
    finally:
        core.encode_special_tokens = before


class ControlTokens:
    """The control tokens of a tokenizer: special ones but the unknown token, other added ones that are marks, and spelled-out bytes."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.added_tokens_decoder.items()
        marks = {index for index, token in added if token.special or MARK.fullmatch(str(token))}
        self.ids = frozenset(marks - {tokenizer.unk_token_id})
        names = (f"<0x{value:02X}>" for value in range(256))
        self.bytes = frozenset(index for name in names if (index := tokenizer.backend_tokenizer.token_to_id(name)) is not None)

    def count(self, text: str, encoding: Encoding) -> int:
        """Control tokens among those of a text."""
        return sum(map(self.ids.__contains__, encoding.ids)) + len(self._spelled_bytes(text, encoding))

    def kept_apart(self, texts: Sequence[str], *, read_special_tokens: bool) -> list[str]:
        """The texts, with a blank within whatever would be read as a control token."""
        kept, waiting = list(texts), list(range(len(texts)))
        while waiting:
            encodings = encode_core(self.tokenizer, [kept[at] for at in waiting], read_special_tokens=read_special_tokens)
            found = {at: self._places(kept[at], encoding) for at, encoding in zip(waiting, encodings, strict=True)}
            for at, places in found.items():
                for start, stop in reversed(places):
                    kept[at] = _divided(kept[at], start, stop)
            waiting = [at for at, places in found.items() if places]
        return kept

    def _places(self, text: str, encoding: Encoding) -> list[tuple[int, int]]:
        named: list[tuple[int, int]] = []
        if not self.ids.isdisjoint(encoding.ids):
            named = [offsets for index, offsets in zip(encoding.ids, encoding.offsets, strict=True) if index in self.ids]
        return sorted({*named, *self._spelled_bytes(text, encoding)})

    def _spelled_bytes(self, text: str, encoding: Encoding) -> list[tuple[int, int]]:
        """Where the text has the name of a byte that became its token; a character that is in no vocabulary becomes such tokens too."""
        if "<0x" not in text or self.bytes.isdisjoint(encoding.ids):
            return []
        places = zip(encoding.ids, encoding.offsets, strict=True)
        return [(start, stop) for index, (start, stop) in places if index in self.bytes and BYTE.fullmatch(text[start:stop])]


def _divided(text: str, start: int, stop: int) -> str:
    """The text with a blank in the middle of a stretch of letters; without the stretch where it has no middle."""
    part = text[start:stop]
    if len(part.strip()) < 2 or " " in part.strip():
        return text[:start] + " " + text[stop:]
    middle = start + len(part) - len(part.lstrip()) + len(part.strip()) // 2
    return f"{text[:middle]} {text[middle:]}"
