"""Rows to text: an instruction, its input and the answer in one layout, with the character offsets of every part.

Offsets are taken while the text is put together, never by searching it afterwards.
"""

import re
from dataclasses import dataclass
from typing import Literal, Self

from transformers import PreTrainedTokenizerBase

from alignx_fast.data.languages import language_name
from alignx_fast.data.rows import Instruction, Pair
from alignx_fast.errors import UserError

WORDINGS = (
    "Translate the following text from {src} to {tgt}.",
    "Translate this {src} text into {tgt}.",
    "Give the {tgt} translation of this {src} text.",
    "Write the following {src} text in {tgt}.",
    "How do you say this in {tgt}? The text is in {src}.",
    "The text below is {src}. What is it in {tgt}?",
)
"""Ways to ask for a translation; the first is the one that evaluation uses."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """One row as text; all offsets in characters, ends exclusive."""

    text: str
    prompt_end: int
    """Where the response begins."""
    source: tuple[int, int] | None
    """The source sentence; None for a general instruction."""
    target: tuple[int, int]
    """The response, without an end-of-turn marker."""


@dataclass(frozen=True, slots=True)
class Template:
    """The fixed text around instruction, input and response."""

    name: Literal["alpaca", "chat"]
    before_instruction: str
    before_input: str
    before_response: str
    after_response: str = ""
    """End-of-turn marker of a chat template."""
    special_tokens: re.Pattern[str] | None = None
    """What a row's text must not contain, because the layout's own markers are read from the text; None: any text is safe."""

    @classmethod
    def alpaca(cls) -> Self:
        """The sections of Alpaca, without its preamble."""
        return cls("alpaca", "### Instruction:\n", "\n\n### Input:\n", "\n\n### Response:\n")

    @classmethod
    def chat(cls, tokenizer: PreTrainedTokenizerBase) -> Self:
        """The tokenizer's own chat layout, read off one rendered conversation.

        Raises:
            UserError: no chat template, or one that fails, repeats, changes or hides the messages.
        """
        if not tokenizer.chat_template:
            raise UserError(
                f"Tokenizer {tokenizer.name_or_path or type(tokenizer).__name__} has no chat template. Use data.template: alpaca."
            )
        before, between, after = _frame(tokenizer, "Qwords", "Awords")
        if (before, between, after) != _frame(tokenizer, "a longer question 1", "some other answer 2"):
            raise UserError("The chat template's fixed text depends on the messages. Use data.template: alpaca.")
        specials = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        pattern = re.compile("|".join(map(re.escape, sorted(specials, key=len, reverse=True)))) if specials else None
        return cls("chat", before, "\n\n", between, after.rstrip(), pattern)

    def render_pair(self, pair: Pair, wording_index: int) -> Rendered:
        """A translation instruction, worded in one of the `WORDINGS` (any number, taken modulo their count)."""
        wording = WORDINGS[wording_index % len(WORDINGS)]
        instruction = wording.format(src=language_name(pair.src_lang), tgt=language_name(pair.tgt_lang))
        return self._render(instruction, pair.src, pair.tgt, is_pair=True)

    def render_instruction(self, row: Instruction) -> Rendered:
        """A general instruction, with or without input."""
        return self._render(row.instruction, row.input, row.output, is_pair=False)

    def prompt_for_pair(self, src_lang: str, tgt_lang: str, src: str) -> str:
        """The prompt of a translation, for generation: ends where the response begins."""
        row = self.render_pair(Pair(src_lang, tgt_lang, src, ""), 0)
        # A blank at the end belongs to the response's first token in every tokenizer that marks blanks on the following word.
        return row.text[: row.prompt_end].rstrip(" ")

    def _render(self, instruction: str, input: str, response: str, *, is_pair: bool) -> Rendered:
        instruction, input, response = instruction.strip(), input.strip(), response.strip()
        head = self.before_instruction + instruction + (self.before_input if input else "")
        prompt = head + input + self.before_response
        return Rendered(
            text=prompt + response + self.after_response,
            prompt_end=len(prompt),
            source=(len(head), len(head) + len(input)) if is_pair else None,
            target=(len(prompt), len(prompt) + len(response)),
        )


def choose(name: Literal["auto", "alpaca", "chat"], tokenizer: PreTrainedTokenizerBase) -> Template:
    """The template by its name; auto is the tokenizer's chat layout where it has one."""
    if name == "auto":
        name = "chat" if tokenizer.chat_template else "alpaca"
    return Template.chat(tokenizer) if name == "chat" else Template.alpaca()


def _frame(tokenizer: PreTrainedTokenizerBase, user: str, assistant: str) -> tuple[str, str, str]:
    """Text before the user's message, between both messages, and after the assistant's."""
    messages = [{"role": "user", "content": user}, {"role": "assistant", "content": assistant}]
    try:
        text = str(tokenizer.apply_chat_template(messages, tokenize=False))
    except Exception as error:  # a template is a program: it may raise anything
        raise UserError(f"The tokenizer's chat template fails: {error}. Use data.template: alpaca.") from None
    before, user_found, rest = text.partition(user)
    between, assistant_found, after = rest.partition(assistant)
    if not (user_found and assistant_found) or user in rest or assistant in after:
        raise UserError("The chat template changes, repeats or hides the messages. Use data.template: alpaca.")
    return before, between, after
