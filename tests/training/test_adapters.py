"""Adapters of every kind through a run: trained, stopped by Ctrl-C, resumed, exported."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from support.runs import settings

from alignx_fast.errors import UserError
from alignx_fast.training.run import train
from alignx_fast.training.trainer import AlignXTrainer
from alignx_fast.verbs.export import export_model


@pytest.mark.parametrize("kind", ["plain", "rslora", "dora"])
@pytest.mark.parametrize("tuning", ["lora", "qlora"])
def test_stopped_and_resumed_equals_uninterrupted(
    tuning: str, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    lora = {"rank": 4, "dropout": 0.1} | ({} if kind == "plain" else {kind: True})
    train(settings(tmp_path, "whole", tuning=tuning, lora=lora), resume=False)

    inner, steps = AlignXTrainer.training_step, []

    def interrupted(self: AlignXTrainer, *args: Any, **kwargs: Any) -> Any:
        steps.append(self.state.global_step)
        if len(steps) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return inner(self, *args, **kwargs)

    monkeypatch.setattr(AlignXTrainer, "training_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(settings(tmp_path, "cut", tuning=tuning, lora=lora), resume=False)
    assert (tmp_path / "cut" / "align" / "checkpoint-2" / "alignment_heads.safetensors").exists()
    train(settings(tmp_path, "cut", tuning=tuning, lora=lora), resume=True)
    assert steps == [0, 1, 2, 3]  # the step in which Ctrl-C came was not lost

    for file in ("model/adapter_model.safetensors", "align/checkpoint-4/alignment_heads.safetensors"):
        whole, cut = (load_file(tmp_path / run / file) for run in ("whole", "cut"))
        assert whole.keys() == cut.keys()
        assert all((whole[name] == cut[name]).all() for name in whole), file
    vectors = [name for name in load_file(tmp_path / "cut" / "model" / "adapter_model.safetensors") if "magnitude" in name]
    assert bool(vectors) == (kind == "dora")
    record = json.loads((tmp_path / "cut" / "environment.json").read_text())["used"]["align"]
    assert record["weights"] == ("nf4" if tuning == "qlora" else "float32")
    assert record["attention"] == "sdpa"
    events = [json.loads(line) for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in events if line.get("event") == "start"] == [0, 2]

    capsys.readouterr()
    export_model(str(tmp_path / "cut"), tmp_path / "plain")
    assert float(capsys.readouterr().out.split("trained model's by ")[1].split("%")[0]) < 0.1


def test_without_bitsandbytes_the_way_out_is_said_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import util

    find = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name, *rest: None if name == "bitsandbytes" else find(name, *rest))
    with pytest.raises(UserError, match=r"qlora, which needs bitsandbytes: .* or use `--model.tuning lora`"):
        train(settings(tmp_path, "run", tuning="qlora"), resume=False)
    chosen = settings(tmp_path, "other")
    chosen.align.optimizer = "adamw_8bit"
    with pytest.raises(UserError, match=r"--align\.optimizer adamw"):
        train(chosen, resume=False)
    assert not (tmp_path / "other").exists()
