"""How well the model predicts plain sentences of each language."""

import math
from collections.abc import Sequence

import torch

from alignx_fast.evaluation.encode import MAX_LENGTH, Sentence
from alignx_fast.evaluation.intervals import bootstrap_ratio
from alignx_fast.evaluation.results import LanguagePerplexity

LARGEST = 700.0  # nats per token; beyond, or NaN, the exponential is no number


def perplexity(
    sentences: Sequence[Sentence], nats_S: torch.Tensor, languages: Sequence[str], max_length: int = MAX_LENGTH
) -> dict[str, LanguagePerplexity]:
    """Perplexity per token and bits per character, by language, from the sum of each sentence's losses in nats.

    Every token of a sentence is predicted, its first one from the opening token alone: BOS where the tokenizer has one, and another token that a
    text may open with where it has none. Sentences cut at `max_length` tokens are left out; so is a language that has no others.
    """
    whole: dict[int, list[tuple[Sentence, float]]] = {}
    for sentence, nats in zip(sentences, nats_S.tolist(), strict=True):
        if len(sentence.example["input_ids"]) < max_length:
            whole.setdefault(sentence.language, []).append((sentence, nats))
    return {code: language_perplexity(whole[i]) for i, code in enumerate(languages) if i in whole}


def language_perplexity(sentences: Sequence[tuple[Sentence, float]]) -> LanguagePerplexity:
    """Scores of one language from its sentences and their losses in nats."""
    tokens = sum(len(sentence.example["input_ids"]) - 1 for sentence, _ in sentences)
    total = sum(nats for _, nats in sentences)
    if not total / tokens < LARGEST:  # also where it is NaN
        return LanguagePerplexity(tokens=tokens, n=len(sentences))
    bits = [nats / math.log(2) for _, nats in sentences]
    characters = [len(sentence.text) for sentence, _ in sentences]
    return LanguagePerplexity(
        perplexity=math.exp(total / tokens),
        bits_per_character=sum(bits) / sum(characters),
        bits_per_character_interval=bootstrap_ratio(bits, characters),
        tokens=tokens,
        n=len(sentences),
    )
