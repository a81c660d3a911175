"""`builtin:tiny`: a small Llama and its tokenizer, built on the spot from the training text."""

from collections.abc import Iterable
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignx_fast.config import ModelSettings

BOS, EOS, PAD = "<s>", "</s>", "<pad>"


def build_tokenizer(texts: Iterable[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE with one BOS in front; any text of any script can be encoded."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD
    )


def tiny_config(settings: ModelSettings, vocabulary: int) -> LlamaConfig:
    """The architecture, without the tokenizer's special tokens."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=settings.tiny_width,
        intermediate_size=3 * settings.tiny_width,
        num_hidden_layers=settings.tiny_layers,
        num_attention_heads=settings.tiny_width // 32,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )


def save_tiny_model(texts: Iterable[str], settings: ModelSettings, seed: int, folder: Path) -> None:
    """Write a randomly initialised Llama with its tokenizer, as a plain Hugging Face folder."""
    tokenizer = build_tokenizer(texts, settings.tiny_vocabulary)
    config = tiny_config(settings, len(tokenizer))
    config.bos_token_id, config.eos_token_id = tokenizer.bos_token_id, tokenizer.eos_token_id
    config.pad_token_id = tokenizer.pad_token_id
    torch.manual_seed(seed)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
