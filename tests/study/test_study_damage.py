"""What the runs of a study have in common is named when it is damaged, and made anew."""

import json
from pathlib import Path

import pytest
from support.studies import read_study, study_tree

from alignx_fast.study import base as module
from alignx_fast.study.base import base_model, base_of
from alignx_fast.study.layout import Layout, run_settings
from alignx_fast.study.stage1 import begin_with_stage_1, has_stage_1
from alignx_fast.study.tasks import Step, tasks_of
from alignx_fast.training.inputs import RunInputs, model_fingerprint


def damage(file: Path, how: str) -> None:
    content = file.read_bytes()
    file.unlink()
    if how == "folder":
        file.mkdir()
    elif how != "missing":
        file.write_bytes({"cut": content[:-1], "empty": b"", "flipped": bytes([content[0] ^ 1]) + content[1:]}[how])


HOW = ["missing", "empty", "cut", "flipped", "folder"]


@pytest.mark.parametrize("how", HOW)
def test_a_damaged_base_is_built_again(
    tmp_path: Path, how: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    study = read_study(study_tree(tmp_path, tmp_path / "out"), tmp_path)
    folder, built = Layout(study.output).base, []
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    parts = {base_of(variant): model_fingerprint(folder) for variant in study.variants}
    RunInputs(study.output).record({}, parts, [])
    monkeypatch.setattr(module, "training_texts", lambda _: [])
    monkeypatch.setattr(module, "save_tiny_model", lambda *args: built.append(args[-1]))
    with base_model(study) as model:
        assert model == folder
    damage(folder / "model.safetensors", how)
    with base_model(study) as model:
        assert [model] == built
    assert f"{folder} is not what this study left there: it is built again." in caplog.text
    assert not folder.exists()


@pytest.mark.parametrize("how", [None, *HOW])
def test_a_damaged_stage_1_is_not_handed_on(tmp_path: Path, how: str | None, caplog: pytest.LogCaptureFixture) -> None:
    study = read_study(study_tree(tmp_path, tmp_path / "out"), tmp_path)
    donor, settings = (run_settings(study, variant, 0) for variant in study.variants[1:])
    model = donor.output / "align" / "model"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"weights")
    (model.parent / "stage.json").write_text("{}")
    RunInputs(donor.output).record({}, {"the model of stage align": model_fingerprint(model)}, [])
    if how is not None:
        damage(model / "model.safetensors", how)
    begin_with_stage_1(donor.output, settings)
    assert has_stage_1(settings.output) == (how is None)
    assert ("trains stage 1 anew" in caplog.text) == (how is not None)


def test_damaged_scores_are_named_and_taken_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = read_study(study_tree(tmp_path, tmp_path / "out"), tmp_path)
    task = tasks_of(study)[0]
    task.scores_file.parent.mkdir(parents=True)
    task.scores_file.write_text(json.dumps({"perplexity": 3}))
    assert task.next_step() is Step.SCORE
    task.command(Step.SCORE)
    assert f"{task.scores_file} cannot be read: its scores are taken again." in caplog.text
