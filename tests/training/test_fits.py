"""`train` asks the memory plan before it reads a weight or a row."""

from pathlib import Path

import pytest
import torch

from alignx_fast.config import load_settings
from alignx_fast.errors import UserError
from alignx_fast.memory.shapes import read_config
from alignx_fast.training import run


def test_what_cannot_fit_is_refused_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load_settings(
        None,
        {"model.path": "meta-llama/Meta-Llama-3-8B-Instruct", "output": str(tmp_path / "run"), "align.optimizer": "adamw"},
    )
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(run, "card_bytes", lambda: 24 * 2**30)
    monkeypatch.setattr(run, "load_config", lambda path, _: read_config(settings.model)[0])
    for name in ("load_model", "load_tokenizer", "prepare"):
        monkeypatch.setattr(run, name, lambda *_, name=name: pytest.fail(f"{name} came before the plan"))
    with pytest.raises(UserError, match=r"has 24.0 GiB; the cheapest changes .* --model.tuning lora; or --model.tuning qlora"):
        run.train(settings, resume=False)
    assert not (tmp_path / "run").exists()
