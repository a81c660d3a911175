"""Held-out sentences, each read once -> a mean-pooled vector per layer, and the loss of its tokens.

A sentence is encoded by itself behind one opening token. The first token of a sequence is an attention sink: its state is huge in trained models, and
would drown the mean of a short sentence. So the opening token takes that place, and is never pooled.

Shape legend: T packed tokens, B sentences of a batch, S all sentences, L languages, N meanings, D hidden width, K predicted tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from alignx_kernels import span_mean
from transformers import PreTrainedTokenizerBase

from alignx_fast.data.packing import PackedBatch, pack
from alignx_fast.data.rows import Meaning
from alignx_fast.data.spans import Example, bos_ids, encode_texts
from alignx_fast.errors import UserError
from alignx_fast.evaluation.progress import Advance
from alignx_fast.models.adapters import Model
from alignx_fast.models.capture import captured
from alignx_fast.models.forward import LOGITS_PER_CHUNK, head_logits, packed_forward
from alignx_fast.models.positions import learned_positions
from alignx_fast.models.tokenizer import opening_token

MAX_LENGTH = 512  # tokens of a sentence; longer ones are cut
VECTOR_BYTES = 4 * 2**30  # vectors held at once; more layers than fit are read in further passes


@dataclass(frozen=True, slots=True)
class Sentence:
    """One held-out sentence: indices into the languages and the meanings, its text and its tokens (opening token + text, no EOS)."""

    language: int
    meaning: int
    text: str
    example: Example


class Reading(NamedTuple):
    """What a pass over sentences gives."""

    vectors: dict[int, torch.Tensor]
    """Layer -> [S, D] fp32 in CPU memory: means over each sentence's tokens without the opening one."""
    nats_S: torch.Tensor | None
    """fp64: sum of each sentence's next-token losses, all its tokens given those before and the opening one; None where not asked for."""


def sentence_opening(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that opens every sentence: the one that the tokenizer itself puts before a text, else BOS, else the end token.

    Raises:
        UserError: the tokenizer has none of them.
    """
    own = bos_ids(tokenizer)  # not always BOS: XGLM opens its texts with </s>, and has never seen its <s>
    token = own[0] if len(own) == 1 else opening_token(tokenizer)
    if token is None:
        raise UserError(
            "The tokenizer has neither a BOS nor an end token, so that no sentence can stand behind one: set its eos_token and save it."
        )
    return token


def longest_sentence(model: Model) -> int:
    """Tokens at which sentences are cut: `MAX_LENGTH`, or the model's learned positions where they are fewer."""
    return min(MAX_LENGTH, learned_positions(model) or MAX_LENGTH)


def encode(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], max_length: int = MAX_LENGTH) -> list[Example]:
    """Tokens of every text behind the opening token, cut to `max_length`.

    Raises:
        UserError: the tokenizer has no token to open them with.
    """
    return encode_texts(tokenizer, texts, sentence_opening(tokenizer), max_length) if texts else []


def tokenise(
    tokenizer: PreTrainedTokenizerBase, meanings: Sequence[Meaning], languages: Sequence[str], max_length: int = MAX_LENGTH
) -> list[Sentence]:
    """Every meaning in every language it has, cut to `max_length` tokens; texts without tokens are left out.

    Raises:
        UserError: the tokenizer has no token to open them with.
    """
    texts = [
        (language, m, text)
        for m, meaning in enumerate(meanings)
        for language, code in enumerate(languages)
        if (text := meaning.texts.get(code, "").strip())
    ]
    examples = encode(tokenizer, [text for *_, text in texts], max_length)
    sentences = [Sentence(language, m, text, example) for (language, m, text), example in zip(texts, examples, strict=True)]
    return [sentence for sentence in sentences if sentence.example["source"][1] > sentence.example["source"][0]]


def present(sentences: Sequence[Sentence], num_languages: int, num_meanings: int) -> torch.Tensor:
    """[L, N] bool: which meaning exists in which language."""
    has_LN = torch.zeros(num_languages, num_meanings, dtype=torch.bool)
    for sentence in sentences:
        has_LN[sentence.language, sentence.meaning] = True
    return has_LN


def layers_at_once(num_sentences: int, width: int) -> int:
    """Layers whose vectors fit `VECTOR_BYTES` together; at least one."""
    return max(1, VECTOR_BYTES // (4 * max(1, num_sentences) * width))


def read(
    model: Model,
    examples: Sequence[Example],
    layers: Sequence[int],
    tokens_per_batch: int,
    *,
    losses: bool = False,
    advance: Advance = lambda count: None,
) -> Reading:
    """One pass over sentences of `encode`: their vectors at `layers`, and their losses if asked for.

    The model is used as it is, under the autocast of the caller. `advance` is called with the number of sentences of every batch.
    """
    width = model.config.get_text_config().hidden_size
    vectors = {layer: torch.zeros(len(examples), width) for layer in layers}
    nats_S = torch.zeros(len(examples), dtype=torch.float64) if losses else None
    for batch in pack(examples, tokens_per_batch, train_on_prompt=True):
        rows_B = torch.tensor(batch.rows)
        texts_B2 = torch.tensor([examples[row]["source"] for row in batch.rows])
        spans_B2 = (batch.cu_seqlens[:-1, None] + texts_B2).to(model.device)

        def mean_states(hidden_TD: torch.Tensor, spans_B2: torch.Tensor = spans_B2) -> torch.Tensor:
            # In fp32: vectors of a trained model lie so close together that bf16 rounds their differences away.
            return span_mean(hidden_TD.float(), spans_B2)

        moved = batch.to(model.device)
        with captured(model, layers, reduce=mean_states, stop=nats_S is None) as states:
            hidden_TD = packed_forward(model, moved)
            if nats_S is not None:
                nats_S[rows_B] = next_token_nats(model, hidden_TD, moved).cpu()
        for layer in layers:
            vectors[layer][rows_B] = states[layer].cpu()
        advance(len(batch.rows))
    return Reading(vectors, nats_S)


def next_token_nats(model: Model, hidden_TD: torch.Tensor, batch: PackedBatch) -> torch.Tensor:
    """[B] fp64: for every sequence of the batch, the sum of its next-token losses in nats. A chunk of logits exists at a time."""
    labels_T = batch.input_ids[0]
    sequence_K = torch.bucketize(batch.label_positions, batch.cu_seqlens[1:].long(), right=True)
    nats_B = torch.zeros(len(batch.rows), dtype=torch.float64, device=labels_T.device)
    rows = max(1, LOGITS_PER_CHUNK // model.config.get_text_config().vocab_size)
    for positions_C, sequence_C in zip(torch.split(batch.label_positions, rows), torch.split(sequence_K, rows), strict=True):
        logits_CV = head_logits(model, hidden_TD[positions_C - 1]).float()
        nats_B.index_add_(0, sequence_C, F.cross_entropy(logits_CV, labels_T[positions_C], reduction="none").double())
    return nats_B
