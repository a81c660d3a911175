"""Sentences read once, behind one opening token, against independent computations on single sentences."""

import math

import pytest
import torch
import torch.nn.functional as F
from support.tokenizers import build_tokenizer
from tokenizers import processors

from alignx_fast.data.packing import pack
from alignx_fast.errors import UserError
from alignx_fast.evaluation import encode
from alignx_fast.evaluation.encode import next_token_nats, present, read, sentence_opening, tokenise
from alignx_fast.evaluation.perplexity import perplexity
from alignx_fast.evaluation.vectors import grid, passes, vector_scores
from alignx_fast.models.capture import body
from alignx_fast.models.forward import head_logits, packed_forward

CODES = ["de", "en", "sw"]
LAYERS = range(4)
BOS, EOS = 0, 1


def without_bos(tokenizer):
    """The same tokenizer where it puts nothing before a text, as those of GPT-2 and Qwen do."""
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A", special_tokens=[])
    return tokenizer


@pytest.fixture(params=["with BOS", "without BOS"])
def opened(request, tokenizer):
    """A tokenizer that puts a BOS before a text, or has one without using it."""
    own = tokenizer.backend_tokenizer.post_processor
    yield tokenizer if request.param == "with BOS" else without_bos(tokenizer)
    tokenizer.backend_tokenizer.post_processor = own


def ids_of(tokenizer, text):
    return torch.tensor([[BOS, *tokenizer(text, add_special_tokens=False)["input_ids"]]])


@torch.no_grad()
def test_vectors_and_losses_equal_single_sentences(model, plain, opened, meanings):
    """Means leave out the opening token; every token of the text is predicted, the first from the opening token alone."""
    sentences = tokenise(opened, meanings, CODES)
    found = read(model.eval(), [sentence.example for sentence in sentences], LAYERS, 64, losses=True)
    for s, sentence in enumerate(sentences):
        ids = ids_of(opened, sentence.text)
        assert sentence.example["input_ids"] == ids[0].tolist()
        output = plain(input_ids=ids, output_hidden_states=True)
        for layer in LAYERS:
            mean = output.hidden_states[layer][0, 1:].mean(0)
            torch.testing.assert_close(found.vectors[layer][s], mean, atol=2e-5, rtol=2e-4)
        nats = F.cross_entropy(output.logits[0, :-1].double(), ids[0, 1:], reduction="sum").item()
        assert found.nats_S[s].item() == pytest.approx(nats, rel=1e-5)


@torch.no_grad()
def test_the_result_does_not_depend_on_batches_or_passes(model, tokenizer, meanings, monkeypatch):
    """One sentence a batch, all in one, and fewer layers at once give the same."""
    model.eval()
    examples = [sentence.example for sentence in tokenise(tokenizer, meanings, CODES)]
    once = [read(model, examples, LAYERS, tokens, losses=True) for tokens in (1, 50, 1000)]
    monkeypatch.setattr(encode, "VECTOR_BYTES", 4 * (len(examples) + 2) * 32 * 3)  # three layers at once
    parts = [reading for reading, _ in passes(model, examples, examples[:2], 1000)]
    assert [list(part.vectors) for part in parts] == [[0, 1, 2], [3]]
    assert parts[1].nats_S is None
    for other in (*once[1:], encode.Reading(parts[0].vectors | parts[1].vectors, parts[0].nats_S)):
        torch.testing.assert_close(once[0].nats_S, other.nats_S, atol=1e-4, rtol=1e-5)
        for layer in LAYERS:
            torch.testing.assert_close(once[0].vectors[layer], other.vectors[layer], atol=2e-5, rtol=2e-4)


@torch.no_grad()
def test_losses_beside_vectors_equal_a_pass_of_their_own(model, tokenizer, meanings):
    """Bit for bit, and in chunks that do not divide the batch as well."""
    model.eval()
    examples = [sentence.example for sentence in tokenise(tokenizer, meanings, CODES)]
    (batch,) = pack(examples, 1000, train_on_prompt=True)
    hidden_TD = packed_forward(model, batch)
    own = next_token_nats(model, hidden_TD, batch)
    assert torch.equal(read(model, examples, LAYERS, 1000, losses=True).nats_S, own)
    logits_TV = head_logits(model, hidden_TD).double()
    losses_K = F.cross_entropy(logits_TV[batch.label_positions - 1], batch.input_ids[0, batch.label_positions], reduction="none")
    lengths = [len(example["input_ids"]) - 1 for example in examples]
    torch.testing.assert_close(own, torch.stack([part.sum() for part in losses_K.split(lengths)]), rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_chunks_of_logits(model, tokenizer, meanings, monkeypatch):
    """Seven rows of logits at a time."""
    model.eval()
    examples = [sentence.example for sentence in tokenise(tokenizer, meanings, CODES)]
    whole = read(model, examples, [], 1000, losses=True).nats_S
    monkeypatch.setattr(encode, "LOGITS_PER_CHUNK", 7 * len(tokenizer))
    torch.testing.assert_close(read(model, examples, [], 1000, losses=True).nats_S, whole)


@torch.no_grad()
def test_means_of_bf16_states_are_not_rounded(model, tokenizer, meanings):
    """Vectors that lie close together would become equal in bf16."""
    model.eval().bfloat16()
    (sentence,) = tokenise(tokenizer, meanings[:1], ["en"])
    states = []
    body(model).layers[0].register_forward_hook(lambda _, __, output: states.append(output))
    (vector,) = read(model, [sentence.example], [1], 64).vectors[1]
    torch.testing.assert_close(vector, states[0][0, 1:].double().mean(0).float())
    assert not torch.equal(vector, vector.bfloat16().float())


@torch.no_grad()
def test_every_sentence_is_read_once(model, tokenizer, meanings):
    """One forward pass over the sentences, which gives the losses too, and one over the hard negatives."""
    seen = []
    body(model.eval()).register_forward_hook(
        lambda _, __, kwargs, ___: seen.append(kwargs["input_ids"].shape[1]), with_kwargs=True
    )
    sentences = tokenise(tokenizer, meanings, CODES)
    scores = vector_scores(model, tokenizer, sentences, CODES, meanings, align_layer=2, pivot="en", tokens_per_batch=1000)
    assert seen[0] == sum(len(sentence.example["input_ids"]) for sentence in sentences)
    assert len(seen) == 2
    assert set(scores.perplexity) == set(CODES)


@torch.no_grad()
def test_perplexity_equals_independent_sum(model, plain, tokenizer, meanings):
    """By language, with the characters of the texts."""
    nats, tokens, characters = 0.0, 0, 0
    for meaning in meanings:
        ids = ids_of(tokenizer, meaning.texts["de"])
        nats += F.cross_entropy(plain(input_ids=ids).logits[0, :-1].double(), ids[0, 1:], reduction="sum").item()
        tokens += ids.shape[1] - 1
        characters += len(meaning.texts["de"])
    sentences = tokenise(tokenizer, meanings, ["de", "en"])
    nats_S = read(model.eval(), [sentence.example for sentence in sentences], [], 50, losses=True).nats_S
    scores = perplexity(sentences, nats_S, ["de", "en"])["de"]
    assert scores.perplexity == pytest.approx(math.exp(nats / tokens), rel=1e-5)
    assert scores.bits_per_character == pytest.approx(nats / math.log(2) / characters, rel=1e-5)
    assert (scores.tokens, scores.n) == (tokens, 5)
    assert scores.bits_per_character_interval.low < scores.bits_per_character < scores.bits_per_character_interval.high


def test_the_opening_token():
    """What the tokenizer puts before a text, else BOS, else the end token; a tokenizer with none of them is refused."""
    assert sentence_opening(build_tokenizer()) == sentence_opening(build_tokenizer(bos=False)) == BOS
    xglm = build_tokenizer()  # XGLM opens its texts with </s>
    xglm.backend_tokenizer.post_processor = processors.TemplateProcessing(single="</s> $A", special_tokens=[("</s>", EOS)])
    assert sentence_opening(xglm) == EOS
    bare = build_tokenizer(bos=False)
    bare.bos_token = None
    assert sentence_opening(bare) == EOS
    bare.eos_token = None
    with pytest.raises(UserError, match=r"neither a BOS nor an end token"):
        sentence_opening(bare)


def test_vectors_stand_at_their_language_and_meaning(tokenizer, meanings):
    """Zero where there is no sentence, and where a model has diverged."""
    del meanings[3].texts["en"]
    sentences = tokenise(tokenizer, meanings, CODES)
    has_LN = present(sentences, 3, 5)
    vectors_SD = torch.arange(1.0, len(sentences) + 1)[:, None].repeat(1, 2)
    vectors_SD[0, 1] = torch.nan
    vectors_LND = grid(vectors_SD, sentences, has_LN)
    for s, sentence in enumerate(sentences):
        assert vectors_LND[sentence.language, sentence.meaning, 0] == s + 1
    assert vectors_LND[1, 3].abs().sum() == vectors_LND[0, 0, 1] == 0
