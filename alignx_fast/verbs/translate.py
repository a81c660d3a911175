"""`alignx-fast translate`: try a trained model on a sentence."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout

from alignx_fast.data.characters import is_broken, without_broken
from alignx_fast.data.languages import check_language
from alignx_fast.data.spans import as_text, encode_prompts
from alignx_fast.evaluation.generation import answers
from alignx_fast.printing import one_line
from alignx_fast.verbs.trained import Trained, open_trained


def translate_lines(path: str, lines: Iterable[str] | None, source: str, target: str) -> None:
    """Print exactly one line for each line (None: of standard input): its translation, which is empty where the line is.

    What would break a line or control a terminal is written out. Anything else that is said goes to standard error.
    """
    source, target = check_language(source), check_language(target)
    with redirect_stdout(sys.stderr):
        trained = open_trained(path)
    changed = 0
    for number, line in enumerate(_standard_input() if lines is None else lines, start=1):
        sentence = " ".join(without_broken(line).splitlines()).strip()
        (text,) = as_text(trained.tokenizer, trained.template, [sentence])
        changed += text != sentence or is_broken(line)
        print(one_line(_translation(trained, source, target, text, number)) if text else "", flush=True)
    if changed:
        what = (
            "a line held control characters, or spelled"
            if changed == 1
            else f"{changed} lines held control characters, or spelled"
        )
        print(f"alignx-fast: {what} control tokens of the tokenizer: taken out, or read as text.", file=sys.stderr)


def _translation(trained: Trained, source: str, target: str, text: str, number: int) -> str:
    """The model's answer; nothing, and a word on standard error, where the model cannot read so much."""
    limits = trained.settings.evaluation
    prompt = encode_prompts(trained.tokenizer, trained.template, [trained.template.prompt_for_pair(source, target, text)])
    longest: int | None = getattr(trained.model.config.get_text_config(), "max_position_embeddings", None)
    room = limits.max_new_tokens if longest is None else min(limits.max_new_tokens, longest - len(prompt[0]))
    if room < 1:
        print(
            f"alignx-fast: line {number} is not translated: its prompt has {len(prompt[0]):,} tokens and the model reads {longest:,}.",
            file=sys.stderr,
        )
        return ""
    (answer,) = answers(
        trained.model,
        trained.tokenizer,
        prompt,
        max_new_tokens=room,
        tokens_per_batch=limits.tokens_per_batch,
        end_marker=trained.template.after_response.strip(),
    )
    return answer.text


def _standard_input() -> Iterator[str]:
    """Its lines, split at line feeds alone; what is not UTF-8 becomes a replacement character."""
    for number, line in enumerate(sys.stdin.buffer):
        yield line.decode("utf-8" if number else "utf-8-sig", errors="replace")
