"""Models with a table of learned positions cannot read past its end, and say so before anything is trained or generated."""

from pathlib import Path

import pytest
import torch
from support.runs import settings
from support.tiny_models import tiny_model
from support.tokenizers import build_tokenizer
from transformers import AutoModelForCausalLM, GPT2Config, OPTConfig, PreTrainedConfig

from alignx_fast.data.rows import Meaning
from alignx_fast.errors import UserError
from alignx_fast.evaluation.encode import longest_sentence, tokenise
from alignx_fast.evaluation.generation import answers
from alignx_fast.models.positions import learned_positions, learned_positions_of
from alignx_fast.training.run import train

SIZE = {"vocab_size": 600, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
LEARNED = {
    "gpt2": GPT2Config(**SIZE, n_embd=16, n_layer=2, n_head=2, n_positions=24),
    "opt": OPTConfig(
        **SIZE,
        hidden_size=16,
        word_embed_proj_dim=16,
        ffn_dim=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=24,
    ),
}


@pytest.mark.parametrize("family", LEARNED)
def test_a_table_of_positions_is_found(family: str) -> None:
    config: PreTrainedConfig = LEARNED[family]
    assert learned_positions(AutoModelForCausalLM.from_config(config)) == 24
    assert learned_positions_of(config, trust_remote_code=False) == 24


@pytest.mark.parametrize("family", ["llama", "gemma2", "xglm"])
def test_computed_positions_have_no_end(family: str) -> None:
    assert learned_positions(tiny_model(family)) is None


def test_a_prompt_with_its_answer_must_fit() -> None:
    model = AutoModelForCausalLM.from_config(LEARNED["gpt2"])
    tokenizer = build_tokenizer()
    with pytest.raises(UserError, match=r"20 tokens\) with its answer \(evaluation.max_new_tokens: 5\) .* 24 learned positions"):
        answers(model, tokenizer, [[3] * 20], max_new_tokens=5, tokens_per_batch=100)
    assert len(answers(model, tokenizer, [[3] * 20], max_new_tokens=4, tokens_per_batch=100)) == 1


def test_sentences_are_cut_where_the_positions_end() -> None:
    model = AutoModelForCausalLM.from_config(LEARNED["gpt2"])
    assert longest_sentence(model) == 24
    (sentence,) = tokenise(build_tokenizer(), [Meaning("0", {"en": "cat " * 50})], ["en"], longest_sentence(model))
    assert len(sentence.example["input_ids"]) == 24


def test_rows_longer_than_the_positions_are_refused_before_training(tmp_path: Path) -> None:
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(LEARNED["gpt2"]).save_pretrained(tmp_path / "m")
    build_tokenizer().save_pretrained(tmp_path / "m")
    with pytest.raises(
        UserError, match=r"longest row of stage align has \d+ tokens, and .* 24 learned positions: .*--data.max_length 24"
    ):
        train(settings(tmp_path, "run", path=str(tmp_path / "m")), resume=False)
