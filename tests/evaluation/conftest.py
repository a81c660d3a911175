"""A tiny random Llama with a byte-level BPE tokenizer, and a few sentences in three languages."""

import copy
from pathlib import Path

import pytest
import sentencepiece
import torch
from support.translations import CHINESE, GERMAN
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignx_fast.data.rows import Meaning
from alignx_fast.models.attention import use_packed_attention

TEXTS = {
    "en": ["Set an alarm for seven.", "What is the weather?", "Play some music now, please.", "Turn off the light.", "Call me."],
    "de": ["Stelle einen Wecker auf sieben.", "Wie ist das Wetter?", "Spiele Musik.", "Mach bitte das Licht aus.", "Ruf an."],
    "sw": ["Weka kengele saa moja.", "Hali ya hewa ikoje?", "Cheza muziki sasa.", "Zima taa.", "Nipigie simu."],
}


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=340, special_tokens=["<s>", "</s>"], initial_alphabet=alphabet, show_progress=False)
    core.train_from_iterator((text for texts in TEXTS.values() for text in texts), trainer)
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", eos_token="</s>")


@pytest.fixture
def model(tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        bos_token_id=0,
        eos_token_id=1,
        initializer_range=0.3,  # far from uniform predictions
    )
    built = LlamaForCausalLM(config).float()
    use_packed_attention(built)
    return built


@pytest.fixture
def plain(model: LlamaForCausalLM) -> LlamaForCausalLM:
    """The same model with the library's own attention, for independent computations on one sentence at a time."""
    twin = copy.deepcopy(model).eval()
    twin.set_attn_implementation("eager")
    return twin


@pytest.fixture
def meanings() -> list[Meaning]:
    return [Meaning(str(i), {code: texts[i] for code, texts in TEXTS.items()}) for i in range(5)]


@pytest.fixture(scope="session")
def pieces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small SentencePiece model in place of the FLORES ones."""
    folder = tmp_path_factory.mktemp("pieces")
    (folder / "text").write_text("\n".join((*GERMAN, *CHINESE)), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text"), model_prefix=str(folder / "pieces"), vocab_size=200, character_coverage=1.0, minloglevel=2
    )
    return folder / "pieces.model"
