"""Export is the trained model: whatever was adapted, by whichever folder it is named, and never another model without a word."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from support.runs import settings
from support.tiny_models import tiny_model
from support.tokenizers import build_tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel

from alignx_fast.config import ModelSettings
from alignx_fast.errors import UserError
from alignx_fast.models import adapters
from alignx_fast.models.weights import load_model
from alignx_fast.training.run import train
from alignx_fast.verbs import export
from alignx_fast.verbs.export import export_model

IDS = torch.arange(5, 45)[None]


def trained_run(folder: Path, tuning: str, **lora: object) -> Path:
    train(settings(folder, "run", tuning=tuning, lora={"rank": 4} | lora), resume=False)
    return folder / "run"


def logits(path: Path, adapter: Path | None = None) -> torch.Tensor:
    model = AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)
    if adapter is not None:
        with adapters.without_peft_warnings():
            model = PeftModel.from_pretrained(model, adapter)
    with torch.no_grad():
        return model.eval()(input_ids=IDS).logits


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())


@pytest.fixture(scope="module")
def qlora_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_run(tmp_path_factory.mktemp("qlora"), "qlora")


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapter_on_one_of_two_tied_layers_leaves_the_other_as_it_was(target: str, tmp_path: Path) -> None:
    run = trained_run(tmp_path, "lora", target_modules=[target, "q_proj"])
    base = run / "base"
    assert json.loads((base / "config.json").read_text())["tie_word_embeddings"]
    export_model(str(run), tmp_path / "plain")
    expected = logits(base, run / "model")
    assert distance(logits(base), expected) > 0.05
    assert distance(logits(tmp_path / "plain"), expected) < 1e-4


def test_every_folder_of_a_qlora_run_exports_to_the_same_model(qlora_run: Path, tmp_path: Path) -> None:
    checkpoint = next((qlora_run / "align").glob("checkpoint-*"))
    folders = {"run": qlora_run, "model": qlora_run / "model", "stage": qlora_run / "align" / "model", "checkpoint": checkpoint}
    shutil.copytree(qlora_run / "model", tmp_path / "copied")  # away from the settings of its run
    for name, path in (folders | {"copy": tmp_path / "copied"}).items():
        export_model(str(path), tmp_path / name)
    whole = load_file(tmp_path / "run" / "model.safetensors")
    for name in ("model", "stage", "checkpoint", "copy"):
        other = load_file(tmp_path / name / "model.safetensors")
        assert all(torch.equal(whole[key], other[key]) for key in whole), name
    assert distance(logits(tmp_path / "run"), logits(qlora_run / "base", qlora_run / "model")) > 0.001  # not the original weights


def test_adapters_of_which_nothing_is_known_are_exported_with_a_warning(
    qlora_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shutil.copytree(qlora_run / "model", tmp_path / "copied")
    (tmp_path / "copied" / adapters.TUNING).unlink()
    export_model(str(tmp_path / "copied"), tmp_path / "plain")
    assert "Nothing says what the adapters in" in caplog.text


def test_another_model_than_the_trained_one_is_not_left_behind(
    qlora_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge = export._merge

    def wrong(*args: Any) -> PreTrainedModel:
        merged = merge(*args)
        merged.get_input_embeddings().weight.data.mul_(1.5)
        return merged

    monkeypatch.setattr(export, "_merge", wrong)
    with pytest.raises(UserError, match=r"differ from the trained model's by \d+\.\d+%, more than rounding explains"):
        export_model(str(qlora_run), tmp_path / "plain")
    assert not list(tmp_path.iterdir())


def test_a_model_that_has_diverged_is_not_exported(tmp_path: Path) -> None:
    model = tiny_model(vocab_size=len(build_tokenizer()))
    model.model.norm.weight.data[0] = float("inf")
    model.save_pretrained(tmp_path / "m")
    build_tokenizer().save_pretrained(tmp_path / "m")
    with pytest.raises(UserError, match="finite"):
        export_model(str(tmp_path / "m"), tmp_path / "plain")
    assert not (tmp_path / "plain").exists()


def test_rounding_all_weights_is_part_of_the_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    tiny_model(vocab_size=len(build_tokenizer())).save_pretrained(tmp_path / "m")
    build_tokenizer().save_pretrained(tmp_path / "m")
    monkeypatch.setattr(export, "product_dtype", lambda settings: torch.bfloat16)
    export_model(str(tmp_path / "m"), tmp_path / "plain")
    assert 0.001 < float(capsys.readouterr().out.split("trained model's by ")[1].split("%")[0]) / 100 < 0.03
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "plain").dtype == torch.bfloat16


def test_tied_weights_beside_those_with_adapters_are_written_too(tmp_path: Path) -> None:
    """BERT ties the head's bias as well as its weight."""
    base, folder = tmp_path / "m", tmp_path / "adapters"
    tiny_model("bert", vocab_size=len(build_tokenizer()), tie_word_embeddings=True).save_pretrained(base)
    chosen = ModelSettings(
        path=str(base), tuning="lora", dtype="float32", lora={"rank": 4, "target_modules": ["decoder", "word_embeddings"]}
    )
    model = load_model(str(base), chosen)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(str(folder), save_embedding_layers=False)
    build_tokenizer().save_pretrained(folder)
    adapters.save_tuning(folder, chosen)
    export_model(str(folder), tmp_path / "plain")
    expected = logits(base, folder)
    assert distance(logits(base), expected) > 0.05
    assert distance(logits(tmp_path / "plain"), expected) < 1e-4


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (
            lambda folder: (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin"),
            r"holds no .*\.bin, are not loaded",
        ),
        (lambda folder: (folder / "adapter_model.safetensors").write_bytes(b"version https://git-lfs"), r"no safetensors data"),
        (lambda folder: renamed(folder, lambda name: f"other.{name}"), r"lack tensors, or hold them under other names"),
        (lambda folder: reshaped(folder), r"have other sizes .* belong to another model"),
        (lambda folder: edited(folder, base_model_name_or_path=None), r"names no base model"),
        (lambda folder: edited(folder, target_modules=["c_attn"]), r"do not fit .*c_attn"),
        (lambda folder: save_file({}, folder / "adapter_model.safetensors"), r"holds no tensors"),
    ],
    ids=["bin", "pointer", "names", "sizes", "no base", "modules", "nothing"],
)
def test_adapters_that_are_no_adapters_of_this_model(damage: object, words: str, qlora_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "adapters"
    shutil.copytree(qlora_run / "model", folder)
    damage(folder)  # type: ignore[operator]
    with pytest.raises(UserError, match=words):
        export_model(str(folder), tmp_path / "plain")


def renamed(folder: Path, rename: object) -> None:
    file = folder / "adapter_model.safetensors"
    save_file({rename(name): x for name, x in load_file(file).items()}, file, metadata={"format": "pt"})  # type: ignore[operator]


def reshaped(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    save_file(
        {name: torch.zeros(x.shape[0] + 1, x.shape[1] + 1) for name, x in load_file(file).items()},
        file,
        metadata={"format": "pt"},
    )


def edited(folder: Path, **changes: object) -> None:
    file = folder / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
