"""Rendered text to tokens, with the source and the target sentence as spans of token positions.

Spans follow from the tokenizer's own map of characters to tokens: a token belongs to a sentence when it covers at least one of
its characters. Tokenising the parts one by one would give other tokens at their borders.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypedDict

from tokenizers import Encoding
from transformers import PreTrainedTokenizerBase

from alignx_fast.data.control import ControlTokens, encode_core
from alignx_fast.data.rows import Dropped, Instruction, Reason
from alignx_fast.data.templates import Rendered, Template
from alignx_fast.errors import UserError


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


def encode_rows(
    tokenizer: PreTrainedTokenizerBase, template: Template, rows: Sequence[Rendered], max_length: int
) -> list[Example | Dropped]:
    """Tokens and spans of every row: one BOS where the tokenizer begins its texts with one, one end token, cut to `max_length`.

    A row that is cut loses its end token, so that nobody learns to stop in mid-sentence. Languages and meaning are left at -1.

    Raises:
        UserError: the tokenizer is not a fast one, or has no end-of-sequence token.
    """
    return next(encode_batches(tokenizer, template, [rows], max_length))


def encode_batches(
    tokenizer: PreTrainedTokenizerBase, template: Template, batches: Iterable[Sequence[Rendered]], max_length: int
) -> Iterator[list[Example | Dropped]]:
    """`encode_rows` for each batch in turn; the Rust core works on the next batch while Python finishes the last one."""
    begin, unknown = bos_ids(tokenizer), tokenizer.unk_token_id
    end = [eos_id(tokenizer)] if _end_of_turn(tokenizer, template) is None else []

    def tokenise(rows: Sequence[Rendered]) -> list[Encoding]:
        return encode_core(tokenizer, [row.text for row in rows], read_special_tokens=template.special_tokens is not None)

    control = ControlTokens(tokenizer)
    plain = template.render_instruction(Instruction("a", "", "a"))
    of_layout = control.count(plain.text, tokenise([plain])[0])

    def finish(rows: Sequence[Rendered], tokenised: Future[list[Encoding]]) -> list[Example | Dropped]:
        pairs = zip(tokenised.result(), rows, strict=True)
        return [
            Dropped(Reason.SPECIAL, row.text)
            if control.count(row.text, encoding) > of_layout
            else _example(encoding, row, begin, end, unknown, max_length)
            for encoding, row in pairs
        ]

    with ThreadPoolExecutor(max_workers=1) as worker:
        ahead = None
        for rows in batches:
            now, ahead = ahead, (rows, worker.submit(tokenise, rows))
            if now is not None:
                yield finish(*now)
        if ahead is not None:
            yield finish(*ahead)


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], opening_token: int, max_length: int) -> list[Example]:
    """Raw sentences, for retrieval and perplexity: the opening token and the text's, no end token; the `source` span is the text alone.

    What would be read as a control token is kept apart, see `ControlTokens.kept_apart`.
    """
    examples = []
    texts = ControlTokens(tokenizer).kept_apart(texts, read_special_tokens=False)
    for encoding in encode_core(tokenizer, texts, read_special_tokens=False):
        ids = [opening_token, *encoding.ids][:max_length]
        span = [1, len(ids)]
        examples.append(Example(input_ids=ids, prompt_length=0, source=span, target=[0, 0], src_lang=-1, tgt_lang=-1, meaning=-1))
    return examples


def encode_prompts(tokenizer: PreTrainedTokenizerBase, template: Template, prompts: Sequence[str]) -> list[list[int]]:
    """Tokens of generation prompts made by `template`, with the same BOS as in training and nothing at the end.

    The texts in them must be free of control tokens, which the layout itself may hold: see `as_text`.
    """
    encodings = encode_core(tokenizer, list(prompts), read_special_tokens=template.special_tokens is not None)
    begin = bos_ids(tokenizer)
    return [_begun(encoding.ids, begin) + encoding.ids for encoding in encodings]


def as_text(tokenizer: PreTrainedTokenizerBase, template: Template, texts: Sequence[str]) -> list[str]:
    """The texts such that none of them becomes a control token in a prompt made by `template`; most are as they were."""
    return ControlTokens(tokenizer).kept_apart(texts, read_special_tokens=template.special_tokens is not None)


def bos_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer itself puts before a text: usually one BOS, nothing for the GPT-2 and Qwen families."""
    plain = encode_core(tokenizer, ["a"], read_special_tokens=False)[0].ids
    whole: list[int] = tokenizer("a")["input_ids"]
    for at in range(len(whole) - len(plain) + 1):
        if whole[at : at + len(plain)] == plain:
            return whole[:at]
    return []


def eos_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that ends a row.

    Raises:
        UserError: the tokenizer has none.
    """
    token: int | None = tokenizer.eos_token_id if tokenizer.eos_token_id is not None else tokenizer.sep_token_id
    if token is None:
        raise UserError(
            "The tokenizer has no end-of-sequence token, so generation would never stop. Set its eos_token and save it."
        )
    return token


def closing_id(tokenizer: PreTrainedTokenizerBase, template: Template) -> int:
    """The last token of a whole row: the layout's own end-of-turn token, or EOS where it has none."""
    own = _end_of_turn(tokenizer, template)
    return eos_id(tokenizer) if own is None else own


def _end_of_turn(tokenizer: PreTrainedTokenizerBase, template: Template) -> int | None:
    """The special token that the layout closes a row with, such as <|im_end|>."""
    if not template.after_response or template.special_tokens is None:
        return None
    last = encode_core(tokenizer, [template.after_response], read_special_tokens=True)[0].ids[-1]
    token = tokenizer.added_tokens_decoder.get(last)
    return last if last == tokenizer.eos_token_id or (token is not None and token.special) else None


def _begun(ids: list[int], begin: list[int]) -> list[int]:
    """What is still to be put before `ids`: nothing when a chat template wrote the BOS itself."""
    return [] if ids[: len(begin)] == begin else begin


def _example(
    encoding: Encoding, row: Rendered, begin: list[int], end: list[int], unknown: int | None, max_length: int
) -> Example | Dropped:
    ids = encoding.ids
    shift = len(_begun(ids, begin))
    whole = begin[:shift] + ids + end
    room = min(len(whole), max_length)
    prompt = min(_token_from(encoding, row.prompt_end, len(row.text)) + shift, room)
    target = _span(encoding, row.target, len(row.text), shift, room)
    source = [0, 0] if row.source is None else _span(encoding, row.source, len(row.text), shift, room)
    needed = [target] if row.source is None else [source, target]
    if any(stop <= start for start, stop in needed):
        cut = len(whole) > max_length
        return Dropped(Reason.TRUNCATED if cut else Reason.UNKNOWN, row.text)
    ids = whole[:room]
    if unknown is not None and any(2 * ids[start:stop].count(unknown) > stop - start for start, stop in needed):
        return Dropped(Reason.UNKNOWN, row.text)
    if row.source is None:
        target = [0, 0]
    return Example(input_ids=ids, prompt_length=prompt, source=source, target=target, src_lang=-1, tgt_lang=-1, meaning=-1)


def _span(encoding: Encoding, chars: tuple[int, int], text_length: int, shift: int, room: int) -> list[int]:
    """Tokens that cover a character of `chars`, shifted by the tokens put in front and cut to the first `room`."""
    start = _token_from(encoding, chars[0], chars[1])
    if start == len(encoding) or chars[0] == chars[1]:
        return [0, 0]
    stop = _token_from(encoding, chars[1], text_length)
    covered = encoding.token_to_chars(stop) if stop < len(encoding) else None
    if covered is not None and covered[0] < chars[1]:
        stop += 1  # one token for the last character and what follows it, such as ".\n"
    return [min(start + shift, room), min(stop + shift, room)]


def _token_from(encoding: Encoding, char: int, stop: int) -> int:
    """The first token that covers a character in [char, stop); the number of tokens where none does.

    Blanks and characters that the tokenizer drops are covered by no token, hence the walk.
    """
    for at in range(char, stop):
        token = encoding.char_to_token(at)
        if token is not None:
            return token
    return len(encoding)
