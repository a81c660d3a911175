"""Tiny random models of every supported family, and random rows for them."""

import random

import torch
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    Gemma2Config,
    GemmaConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2Config,
    Qwen3Config,
    XGLMConfig,
)

from alignx_fast.data.spans import Example
from alignx_fast.models.attention import use_packed_attention

VOCABULARY = 97
SIZE = {"vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4}
TOKENS = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
FAMILIES: dict[str, PreTrainedConfig] = {
    "llama": LlamaConfig(**SIZE, **TOKENS, num_key_value_heads=2),
    "mistral": MistralConfig(**SIZE, **TOKENS, num_key_value_heads=2, sliding_window=4),
    "gemma": GemmaConfig(**SIZE, **TOKENS, num_key_value_heads=1, head_dim=8),
    "gemma2": Gemma2Config(**SIZE, **TOKENS, num_key_value_heads=2, head_dim=8, sliding_window=4, query_pre_attn_scalar=8),
    "qwen2": Qwen2Config(**SIZE, **TOKENS, num_key_value_heads=2),
    "qwen3": Qwen3Config(**SIZE, **TOKENS, num_key_value_heads=2, head_dim=8),
    "xglm": XGLMConfig(
        **TOKENS,
        vocab_size=VOCABULARY,
        d_model=32,
        ffn_dim=48,
        num_layers=3,
        attention_heads=4,
        dropout=0.0,
        attention_dropout=0.0,
    ),
    "bert": BertConfig(**SIZE, **TOKENS, is_decoder=True, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0),
}


def tiny_model(family: str = "llama", dtype: torch.dtype = torch.float32, seed: int = 0, **changes: object) -> PreTrainedModel:
    """A random model with weights large enough that every token matters to every other."""
    config = type(FAMILIES[family])(**(FAMILIES[family].to_dict() | changes))
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    use_packed_attention(model)
    return model


def random_rows(count: int, seed: int = 0, languages: int = 3) -> list[Example]:
    """Rows of ragged length with a source and a target span, as the data pipeline makes them."""
    rng = random.Random(seed)
    rows = []
    for meaning in range(count):
        prompt, source, between, target = (rng.randint(*bounds) for bounds in ((2, 4), (1, 7), (1, 3), (1, 7)))
        length = prompt + source + between + target + 1
        start = prompt + source + between
        rows.append(
            Example(
                input_ids=[1] + [rng.randrange(3, VOCABULARY) for _ in range(length - 2)] + [2],
                prompt_length=start,
                source=[prompt, prompt + source],
                target=[start, start + target],
                src_lang=rng.randrange(languages),
                tgt_lang=rng.randrange(languages),
                meaning=meaning // 2 if meaning < 4 else meaning,
            )
        )
    return rows
