"""How well the model predicts plain sentences of each language."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F

from alignx_fast.data.packing import PackedBatch
from alignx_fast.evaluation.encode import MAX_LENGTH, Sentence, batches
from alignx_fast.evaluation.results import LanguagePerplexity
from alignx_fast.models.adapters import Model
from alignx_fast.models.forward import LOGITS_PER_CHUNK, head_logits, packed_forward

LARGEST = 700.0  # nats per token; beyond, or NaN, the exponential is no number


def perplexity(
    model: Model, sentences: Sequence[Sentence], languages: Sequence[str], tokens_per_batch: int
) -> dict[str, LanguagePerplexity]:
    """Perplexity per token and bits per character, by language.

    Sentences cut at `MAX_LENGTH` are left out; so is a language that has no others. Without a BOS token a sentence's first token
    is given.
    """
    whole = [sentence for sentence in sentences if len(sentence.example["input_ids"]) < MAX_LENGTH]
    nats, tokens, characters = [0.0] * len(languages), [0] * len(languages), [0] * len(languages)
    for packed, batch in batches(model, whole, tokens_per_batch):
        for sentence, (loss, count) in zip(packed, sequence_losses(model, batch), strict=True):
            nats[sentence.language] += loss
            tokens[sentence.language] += count
            characters[sentence.language] += len(sentence.text)
    return {code: language_perplexity(nats[i], tokens[i], characters[i]) for i, code in enumerate(languages) if tokens[i]}


def language_perplexity(nats: float, tokens: int, characters: int) -> LanguagePerplexity:
    """Scores of one language from the sum of its losses and its lengths."""
    if not nats / tokens < LARGEST:  # also where it is NaN
        return LanguagePerplexity(tokens=tokens)
    return LanguagePerplexity(
        perplexity=math.exp(nats / tokens), bits_per_character=nats / math.log(2) / characters, tokens=tokens
    )


def sequence_losses(model: Model, batch: PackedBatch) -> list[tuple[float, int]]:
    """Sum of the next-token loss (nats) and number of predicted tokens for every sequence of the batch."""
    hidden_TD, labels_T = packed_forward(model, batch), batch.input_ids[0]
    sequence = torch.bucketize(batch.label_positions, batch.cu_seqlens[1:].long(), right=True)
    losses = [
        F.cross_entropy(head_logits(model, hidden_TD[chunk - 1]).float(), labels_T[chunk], reduction="none")
        for chunk in torch.split(batch.label_positions, max(1, LOGITS_PER_CHUNK // model.config.get_text_config().vocab_size))
    ]
    sums = torch.zeros(len(batch.rows), dtype=torch.float64, device=labels_T.device)
    sums.index_add_(0, sequence, torch.cat(losses).double())
    return list(zip(sums.tolist(), torch.bincount(sequence, minlength=len(batch.rows)).tolist(), strict=True))
