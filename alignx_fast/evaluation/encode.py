"""Held-out sentences -> one mean-pooled vector per sentence and layer.

Shape legend: T packed tokens, S sentences of a batch, L languages, N meanings, D hidden width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from alignx_kernels import span_mean
from transformers import PreTrainedTokenizerBase

from alignx_fast.data.packing import PackedBatch, pack
from alignx_fast.data.rows import Meaning
from alignx_fast.data.spans import Example, encode_texts
from alignx_fast.models.adapters import Model
from alignx_fast.models.capture import captured
from alignx_fast.models.forward import packed_forward

MAX_LENGTH = 512  # tokens of a sentence; longer ones are cut
VECTOR_BYTES = 4 * 2**30  # vectors held at once; more layers than fit are read in further passes


@dataclass(frozen=True, slots=True)
class Sentence:
    """One held-out sentence: indices into the languages and the meanings, its text and its tokens (BOS + text, no EOS)."""

    language: int
    meaning: int
    text: str
    example: Example


def tokenise(tokenizer: PreTrainedTokenizerBase, meanings: Sequence[Meaning], languages: Sequence[str]) -> list[Sentence]:
    """Every meaning in every language it has; texts without tokens are left out."""
    texts = [
        (language, m, text)
        for m, meaning in enumerate(meanings)
        for language, code in enumerate(languages)
        if (text := meaning.texts.get(code, "").strip())
    ]
    examples = encode_texts(tokenizer, [text for *_, text in texts], MAX_LENGTH) if texts else []
    sentences = [Sentence(language, m, text, example) for (language, m, text), example in zip(texts, examples, strict=True)]
    return [sentence for sentence in sentences if sentence.example["source"][1] > sentence.example["source"][0]]


def present(sentences: Sequence[Sentence], num_languages: int, num_meanings: int) -> torch.Tensor:
    """[L, N] bool: which meaning exists in which language."""
    has_LN = torch.zeros(num_languages, num_meanings, dtype=torch.bool)
    for sentence in sentences:
        has_LN[sentence.language, sentence.meaning] = True
    return has_LN


def batches(model: Model, sentences: Sequence[Sentence], tokens_per_batch: int) -> Iterator[tuple[list[Sentence], PackedBatch]]:
    """Packed batches on the model's device, each with its sentences in the order in which they are packed."""
    for batch in pack([sentence.example for sentence in sentences], tokens_per_batch, train_on_prompt=True):
        yield [sentences[row] for row in batch.rows], batch.to(model.device)


def layer_vectors(
    model: Model,
    sentences: Sequence[Sentence],
    has_LN: torch.Tensor,
    layers: Sequence[int],
    tokens_per_batch: int,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield (layer, vectors [L, N, D] fp32 on CPU): means over each sentence's tokens without BOS, zero where there is none.

    All layers come from one pass over the sentences as long as their vectors fit `VECTOR_BYTES`, else from several.
    """
    shape = (*has_LN.shape, model.config.get_text_config().hidden_size)
    at_once = max(1, VECTOR_BYTES // (4 * shape[0] * shape[1] * shape[2]))
    for first in range(0, len(layers), at_once):
        group = layers[first : first + at_once]
        vectors = {layer: torch.zeros(shape) for layer in group}
        for packed, batch in batches(model, sentences, tokens_per_batch):
            starts = batch.cu_seqlens[:-1, None]
            spans_S2 = starts + torch.tensor([s.example["source"] for s in packed], dtype=starts.dtype, device=starts.device)
            with captured(model, group, reduce=partial(span_mean, spans_S2=spans_S2)) as states:
                packed_forward(model, batch)
            rows = torch.tensor([s.language for s in packed]), torch.tensor([s.meaning for s in packed])
            for layer in group:
                vectors[layer][rows] = states[layer].float().cpu()
        for layer in group:
            yield layer, vectors.pop(layer)
