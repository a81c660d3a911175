"""Weights that are not the model's, and tokens that it has no embedding for."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny_models import tiny_model
from support.tokenizers import CHATML, build_tokenizer

from alignx_fast.config import ModelSettings
from alignx_fast.errors import UserError
from alignx_fast.models.tokenizer import fit_tokenizer
from alignx_fast.models.weights import check_base, load_model

Weights = dict[str, torch.Tensor]


def folder(tmp_path: Path, change: Callable[[Weights], Weights]) -> Path:
    tiny_model().save_pretrained(tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})
    return tmp_path / "m"


def load(path: Path, tuning: str = "full") -> torch.nn.Module:
    return load_model(str(path), ModelSettings(path=str(path), tuning=tuning))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda w: {f"_orig_mod.{name}": x for name, x in w.items()}, r"lack lm_head\.weight and \d+ more.* hold _orig_mod\."),
        (lambda w: {name: x for name, x in w.items() if "layers.1." not in name}, r"lack model\.layers\.1\."),
        (lambda w: {name: x for name, x in w.items() if name != "model.norm.weight"}, r"lack model\.norm\.weight, which"),
        (lambda w: w | {"model.layers.3.mlp.up_proj.weight": torch.zeros(2)}, r"hold model\.layers\.3\..* no place"),
    ],
    ids=["prefix", "a layer", "one tensor", "a layer too many"],
)
@pytest.mark.parametrize("tuning", ["full", "qlora"])
def test_weights_of_another_model_are_refused(
    change: Callable[[Weights], Weights], words: str, tuning: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=words):
        load(folder(tmp_path, change), tuning)


def test_a_head_that_is_not_used_does_no_harm(tmp_path: Path) -> None:
    path = folder(tmp_path, lambda w: w | {"classifier.weight": torch.zeros(2)})
    before = load_file(path / "model.safetensors")
    assert torch.equal(load(path).state_dict()["model.norm.weight"], before["model.norm.weight"])


def test_tied_weights_are_not_missing(tmp_path: Path) -> None:
    tiny_model(tie_word_embeddings=True).save_pretrained(tmp_path / "m")
    assert "lm_head.weight" not in load_file(tmp_path / "m" / "model.safetensors")
    load(tmp_path / "m")


def test_files_that_are_no_weights_are_one_sentence(tmp_path: Path) -> None:
    path = folder(tmp_path, dict)
    whole = (path / "model.safetensors").read_bytes()
    (path / "model.safetensors").write_bytes(whole[:2000])
    with pytest.raises(UserError, match=r"no safetensors data .* cut, or a Git LFS pointer"):
        load(path)
    (path / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(UserError, match="no safetensors data"):
        load(path)
    (path / "model.safetensors").write_bytes(whole)
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | {"vocab_size": 55}))
    with pytest.raises(UserError, match="other sizes than its config"):
        load(path)


def test_every_token_that_can_appear_has_an_embedding() -> None:
    tokenizer, config = build_tokenizer(), tiny_model().config
    config.vocab_size = len(tokenizer)
    fit_tokenizer(tokenizer, config, "m")
    tokenizer.add_special_tokens({"pad_token": "[PAD]", "additional_special_tokens": ["<|im_end|>"]})
    assert tokenizer.pad_token_id >= config.vocab_size
    for _ in range(2):  # also as it is saved with the trained model
        fit_tokenizer(tokenizer, config, "m")
        assert tokenizer.pad_token == tokenizer.eos_token
    tokenizer.chat_template = CHATML
    with pytest.raises(UserError, match=r"no embedding for \(1, such as '<\|im_end\|>'; .* resize_token_embeddings"):
        fit_tokenizer(tokenizer, config, "m")
    tokenizer.chat_template = None
    tokenizer.add_tokens(["Zugabteil"])
    with pytest.raises(UserError, match="such as 'Zugabteil'"):
        fit_tokenizer(tokenizer, config, "m")


@pytest.mark.parametrize("tuning", ["full", "lora", "qlora"])
def test_weights_that_are_quantised_already_are_refused_before_anything_is_read(tuning: str, tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path / "m")
    file = tmp_path / "m" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"quantization_config": {"quant_method": "gptq", "bits": 4}}))
    with pytest.raises(UserError, match=r"quantised already \(gptq\): give the original model in `model.path`"):
        check_base(str(tmp_path / "m"), ModelSettings(path=str(tmp_path / "m"), tuning=tuning))
    with pytest.raises(UserError, match="quantised already"):
        load(tmp_path / "m", tuning)


def test_adapters_are_no_model_to_train(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match=r"holds adapters, .* `alignx-fast export"):
        load(tmp_path)
