"""Answers to prompts, greedy or by beam search, in batches with left padding."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers import GenerationConfig, PreTrainedTokenizerBase

from alignx_fast.data.spans import eos_id
from alignx_fast.evaluation.progress import Advance
from alignx_fast.models.adapters import Model
from alignx_fast.models.forward import generation_mode
from alignx_fast.models.positions import check_positions, learned_positions

# A model that rambles on opens a new section of the prompt layout; any other heading is part of its answer.
NEXT_SECTION = re.compile(r"(?:^|\n)\s*### (?:Instruction|Input|Response):")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a model said to one prompt."""

    text: str
    finished: bool
    """Whether it came to an end, rather than being cut at the longest length."""


def answers(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[list[int]],
    *,
    max_new_tokens: int,
    tokens_per_batch: int,
    end_marker: str = "",
    beams: int = 1,
    advance: Advance = lambda count: None,
) -> list[Answer]:
    """The model's likeliest continuation of each prompt (token ids), cut at the end token and at a new prompt section.

    Args:
        tokens_per_batch: a batch holds at most so many tokens, prompt, padding and answer together for every beam, and at least one prompt.
        end_marker: the text by which the prompt layout ends a turn, if it has one: it ends an answer too.
        beams: width of the beam search, whose scores are means over tokens; 1 is greedy.
        advance: called after each batch with the number of its prompts.

    Raises:
        UserError: as `check_room`.
    """
    check_room(model, prompts, max_new_tokens)
    ends = end_tokens(model, tokenizer, end_marker)
    pad = next(token for token in (tokenizer.pad_token_id, *ends) if token is not None)  # masked by length, never by id
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=max_new_tokens, do_sample=False, num_beams=beams, pad_token_id=pad, eos_token_id=ends, use_cache=True
    )
    found: dict[int, Answer] = {}
    with generation_mode(model):
        for rows in batches_by_length(prompts, max_new_tokens, tokens_per_batch // beams):
            width = max(len(prompts[row]) for row in rows)
            ids = torch.tensor([[pad] * (width - len(prompts[row])) + prompts[row] for row in rows], device=model.device)
            blank = torch.tensor([width - len(prompts[row]) for row in rows], device=model.device)
            mask = (torch.arange(width, device=model.device) >= blank[:, None]).long()
            output = model.generate(input_ids=ids, attention_mask=mask, generation_config=config)  # type: ignore[operator]
            for row, tokens in zip(rows, output[:, width:].tolist(), strict=True):
                found[row] = cut(tokenizer, tokens, ends)
            advance(len(rows))
    return [found[row] for row in range(len(prompts))]


def check_room(model: Model, prompts: Sequence[list[int]], max_new_tokens: int) -> None:
    """Refuse prompts after which an answer has no room.

    Raises:
        UserError: the longest and its answer have more tokens than the model has learned positions.
    """
    longest = max(map(len, prompts), default=0)
    check_positions(
        learned_positions(model),
        longest + max_new_tokens,
        f"The longest prompt ({longest:,} tokens) with its answer (evaluation.max_new_tokens: {max_new_tokens:,}) may have",
        "allow fewer new tokens, or give shorter text",
    )


def batches_by_length(prompts: Sequence[list[int]], max_new_tokens: int, tokens_per_batch: int) -> list[list[int]]:
    """Rows grouped by similar length, longest first, so that a batch too large for the memory fails at once."""
    groups: list[list[int]] = []
    for row in sorted(range(len(prompts)), key=lambda row: -len(prompts[row])):
        if groups and (len(prompts[groups[-1][0]]) + max_new_tokens) * (len(groups[-1]) + 1) <= tokens_per_batch:
            groups[-1].append(row)
        else:
            groups.append([row])
    return groups


def end_tokens(model: Model, tokenizer: PreTrainedTokenizerBase, end_marker: str) -> list[int]:
    """Tokens that end an answer: the tokenizer's, those of the model's generation settings, and the end of a chat turn."""
    configured = getattr(model.generation_config, "eos_token_id", None)
    configured = configured if isinstance(configured, list) else [configured]
    marker = tokenizer.encode(end_marker, add_special_tokens=False)
    turn = marker[0] if len(marker) == 1 else None  # several tokens may begin an ordinary word too
    return sorted({token for token in (eos_id(tokenizer), turn, *configured) if token is not None})


def cut(tokenizer: PreTrainedTokenizerBase, tokens: list[int], ends: Sequence[int]) -> Answer:
    """The text before the first end token and before a new prompt section, without surrounding blanks."""
    stop = next((i for i, token in enumerate(tokens) if token in ends), len(tokens))
    text = str(tokenizer.decode(tokens[:stop], skip_special_tokens=True))
    sections = NEXT_SECTION.split(text, maxsplit=1)
    return Answer(sections[0].strip(), finished=stop < len(tokens) or len(sections) > 1)
