"""Resuming: a run goes on with what it was started with, or says what is other; nothing that a kill or a disk damages is fatal."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file, save_file
from support.runs import settings

from alignx_fast.config import Settings
from alignx_fast.errors import UserError
from alignx_fast.lock import only_writer
from alignx_fast.training import run as run_module
from alignx_fast.training.checkpoints import last_checkpoint, remove_old_checkpoints
from alignx_fast.training.run import train
from alignx_fast.verbs.trained import open_trained

FILES = [
    "alignment_heads.safetensors",
    "config.json",
    "files.json",
    "model.safetensors",
    "optimizer.pt",
    "rng_state.pth",
    "scheduler.pt",
    "trainer_state.json",
    "training_args.bin",
]


def wanted(folder: Path, run: str = "run") -> Settings:
    chosen = settings(folder, run)
    chosen.align.save_every = 2
    return chosen


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run of four steps in `run`."""
    folder = tmp_path_factory.mktemp("whole")
    train(wanted(folder), resume=False)
    return folder


@pytest.fixture
def cut(whole: Path, tmp_path: Path) -> Path:
    """A copy of that folder as if the run had been killed after step 2."""
    shutil.copytree(whole, tmp_path / "cut")
    run = tmp_path / "cut" / "run"
    for done in ("model", "align/model", "align/checkpoint-4"):
        shutil.rmtree(run / done)
    return tmp_path / "cut"


def same_model(run: Path, whole: Path) -> bool:
    mine, other = (load_file(folder / "model" / "model.safetensors") for folder in (run, whole / "run"))
    return all(bool((mine[name] == other[name]).all()) for name in other)


# What a run was made of.


def test_a_copied_run_goes_on_as_if_nothing_had_happened(cut: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another folder, with another cache, from another working directory."""
    monkeypatch.chdir(cut)
    chosen = wanted(cut)
    chosen.output = Path("run")
    train(chosen, resume=True)
    assert same_model(cut / "run", whole)


def test_other_data_is_refused_or_accepted_and_written_down(cut: Path, caplog: pytest.LogCaptureFixture) -> None:
    chosen, pairs = wanted(cut), cut / "pairs.jsonl"
    pairs.write_text(pairs.read_text().replace("cat", "cap"))
    before = {path: path.read_bytes() for path in (cut / "run").rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"The data of stage align and the held-out sentences differ from what .*run was started"):
        train(chosen, resume=True)
    assert before == {path: path.read_bytes() for path in (cut / "run").rglob("*") if path.is_file()}
    train(chosen, resume=True, accept_changes=True)
    (accepted,) = json.loads((cut / "run" / "inputs.json").read_text())["accepted_changes"]
    assert accepted["changes"] == ["the data of stage align", "the held-out sentences"]
    train(chosen, resume=True)  # from now on that is the run's own data


def test_one_other_value_in_the_weights_is_noticed(whole: Path, tmp_path: Path) -> None:
    """Of the base model, and of the model that a finished stage has left."""
    model = tmp_path / "model"
    shutil.copytree(whole / "run" / "base", model)
    chosen = wanted(tmp_path)
    chosen.model.path = str(model)
    train(chosen, resume=False)
    for folder, words in (
        (model, "The base model differs from"),
        (tmp_path / "run" / "align" / "model", "The model of stage align differs"),
    ):
        file = folder / "model.safetensors"
        good, tensors = file.read_bytes(), load_file(file)
        next(iter(tensors.values())).view(-1)[0] += 1e-3
        file.unlink()  # the published model is a hard link of it
        save_file(tensors, file, metadata={"format": "pt"})
        with pytest.raises(UserError, match=words):
            train(chosen, resume=True)
        file.write_bytes(good)
    moved = tmp_path / "elsewhere"
    model.rename(moved)
    chosen.model.path = str(moved)  # the same model in another place
    train(chosen, resume=True)


def test_a_damaged_base_that_the_run_has_built_is_built_again(cut: Path, whole: Path) -> None:
    file = cut / "run" / "base" / "model.safetensors"
    good = file.read_bytes()
    file.write_bytes(good[:-100])
    train(wanted(cut), resume=True)
    assert file.read_bytes() == good
    assert same_model(cut / "run", whole)


def test_other_settings_are_refused_or_accepted_and_written_down(cut: Path) -> None:
    chosen = wanted(cut)
    chosen.align.learning_rate = 3e-3
    for attempt in range(2):
        with pytest.raises(UserError, match=r"another value of align.learning_rate: .* with --accept-changes"):
            train(chosen, resume=True)
        # an edit of the run's own file is a change too
        (cut / "run" / "settings.yaml").write_text(yaml.safe_dump(chosen.model_dump(mode="json"))) if not attempt else None
    train(chosen, resume=True, accept_changes=True)
    (accepted,) = json.loads((cut / "run" / "inputs.json").read_text())["accepted_changes"]
    assert accepted["changes"] == ["align.learning_rate: 0.01 -> 0.003"]
    chosen.model.tuning = "lora"
    with pytest.raises(UserError, match=r"another value of model.tuning, on which what it has saved depends"):
        train(chosen, resume=True, accept_changes=True)


def test_a_run_of_an_older_version_goes_on(cut: Path, whole: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It has neither fingerprints nor a record of the files of its checkpoints."""
    (cut / "run" / "inputs.json").unlink()
    (cut / "run" / "align" / "checkpoint-2" / "files.json").unlink()
    train(settings_in_place(cut), resume=True)
    assert same_model(cut / "run", whole)
    assert "holds no fingerprints" in caplog.text


def settings_in_place(folder: Path) -> Settings:
    """The settings as the run has them, whose paths must not change where there are no fingerprints."""
    before = yaml.safe_load((folder / "run" / "settings.yaml").read_text())
    return Settings.model_validate(before | {"output": str(folder / "run")})


# Checkpoints.


@pytest.mark.parametrize("how", ["cut", "empty", "missing", "flipped"])
@pytest.mark.parametrize("name", FILES)
def test_damaged_checkpoints_are_named_and_the_one_before_is_used(
    whole: Path, tmp_path: Path, name: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (2, 4):
        shutil.copytree(whole / "run" / "align" / f"checkpoint-{step}", tmp_path / f"checkpoint-{step}")
    assert sorted(path.name for path in (tmp_path / "checkpoint-4").iterdir() if path.name in FILES) == FILES
    file = tmp_path / "checkpoint-4" / name
    content = file.read_bytes()
    middle = len(content) // 2
    if how == "missing":
        file.unlink()
    else:
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        file.write_bytes({"cut": content[:-20], "empty": b"", "flipped": flipped}[how])
    if (name, how) == ("files.json", "missing"):
        assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-4"  # as of an older version, and all else is whole
        return
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert f"{tmp_path / 'checkpoint-4'} is passed over: " in caplog.text


def test_a_checkpoint_under_another_name_is_passed_over(whole: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for step in (2, 5):
        shutil.copytree(whole / "run" / "align" / "checkpoint-2", tmp_path / f"checkpoint-{step}")
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert "checkpoint-5 is passed over: it is one of step 2 under another name." in caplog.text


def test_a_damaged_checkpoint_is_set_aside_by_the_run(whole: Path, cut: Path, caplog: pytest.LogCaptureFixture) -> None:
    stage = cut / "run" / "align"
    shutil.copytree(whole / "run" / "align" / "checkpoint-4", stage / "checkpoint-4")
    (stage / "checkpoint-4" / "optimizer.pt").write_bytes(b"torn")
    train(wanted(cut), resume=True)
    assert "its optimizer.pt has 4 bytes instead of" in caplog.text
    assert (stage / "damaged-1-checkpoint-4" / "optimizer.pt").exists()
    assert same_model(cut / "run", whole)


def test_foreign_folders_are_left_alone(cut: Path, whole: Path) -> None:
    stage = cut / "run" / "align"
    names = ["checkpoint-2-good", "checkpoint-best", "checkpoint-", "checkpoint-02", "checkpoint-9 (copy)"]
    for name in names:
        shutil.copytree(stage / "checkpoint-2", stage / name)
    (stage / "checkpoint-7").write_text("no folder")
    train(wanted(cut), resume=True)
    assert all((stage / name / "model.safetensors").exists() for name in names)
    assert same_model(cut / "run", whole)


def test_rotation_goes_by_step(tmp_path: Path) -> None:
    """A clock that was set back makes new checkpoints look old; those beyond the step and foreign ones stay."""
    for step in (2, 4, 10, 30):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "files.json").write_text('{"a": {}}')
        os.utime(tmp_path / f"checkpoint-{step}", (1000 - step, 1000 - step))
    (tmp_path / "checkpoint-9").mkdir()
    (tmp_path / "checkpoint-9" / "files.json").write_text("{}")  # unfinished: does not count
    (tmp_path / "checkpoint-1-good").mkdir()
    (tmp_path / "removed-checkpoint-1").mkdir()
    remove_old_checkpoints(tmp_path, 2, 10)
    left = {"checkpoint-4", "checkpoint-10", "checkpoint-30", "checkpoint-1-good"}
    assert {path.name for path in tmp_path.iterdir()} == left
    remove_old_checkpoints(tmp_path, None, 10)
    remove_old_checkpoints(tmp_path, 1, 10, best=str(tmp_path / "checkpoint-4"))
    assert {path.name for path in tmp_path.iterdir()} == left


def test_old_checkpoints_that_cannot_be_loaded_are_one_sentence(cut: Path) -> None:
    checkpoint = cut / "run" / "align" / "checkpoint-2"
    (checkpoint / "files.json").unlink()
    (checkpoint / "optimizer.pt").write_bytes(b"torn")
    with pytest.raises(
        UserError, match=r"checkpoint-2 cannot be loaded \(.*\): it is damaged, or made with other settings. Remove"
    ):
        train(wanted(cut), resume=True)


# Records.


@pytest.mark.parametrize(
    "junk", [b'{"stage": "align", "st', b"\xff\xfe\0\0", b"[]\n{}\nnull", b'{"stage": "align", "step": "x"}']
)
def test_damaged_lines_of_the_log_are_skipped(cut: Path, whole: Path, junk: bytes) -> None:
    file = cut / "run" / "log.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + junk + b"\n" + b"".join(lines[1:])[:-30])
    train(wanted(cut), resume=True)
    kept = [json.loads(line) for line in file.read_text().splitlines()]
    assert max(line["step"] for line in kept) == 4
    assert same_model(cut / "run", whole)


@pytest.mark.parametrize("name", ["settings.yaml", "environment.json", "inputs.json", "data/align.json", "align/stage.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"\0\0\0", None], ids=["empty", "cut", "zeros", "missing"])
def test_damaged_records_are_restored(cut: Path, name: str, content: bytes | None) -> None:
    file, chosen = cut / "run" / name, settings_in_place(cut)
    file.unlink() if content is None else file.write_bytes(content)
    train(chosen, resume=True)
    assert isinstance(yaml.safe_load(file.read_text()), dict)  # JSON is YAML
    assert yaml.safe_load((cut / "run" / "settings.yaml").read_text())["align"]["save_every"] == 2
    assert json.loads((cut / "run" / "environment.json").read_text())["used"]["align"]


def test_damaged_settings_still_refuse_others(cut: Path) -> None:
    chosen = wanted(cut)
    (cut / "run" / "settings.yaml").write_text("")
    chosen.seed = 5
    with pytest.raises(UserError, match="another value of seed"):
        train(chosen, resume=True)


# Starts.


def test_a_failed_start_blocks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails with its base model built: the next start may have other settings, and builds its own."""
    chosen = wanted(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "prepare", lambda *_: (_ for _ in ()).throw(UserError("no data")))
        with pytest.raises(UserError, match="no data"):
            train(chosen, resume=False)
    assert (tmp_path / "run" / "base").exists()
    chosen.model.tiny_width = 96
    train(chosen, resume=False)
    assert json.loads((tmp_path / "run" / "model" / "config.json").read_text())["hidden_size"] == 96


def test_a_start_that_is_refused_at_once_leaves_nothing(tmp_path: Path) -> None:
    chosen = wanted(tmp_path)
    chosen.model.path = str(tmp_path / "nothing")
    with pytest.raises(UserError):
        train(chosen, resume=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("part", ["settings.yaml", "log.jsonl", "align", "model"])
def test_a_run_is_not_taken_for_a_failed_start(cut: Path, part: str) -> None:
    path = cut / "run" / part
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()
    with pytest.raises(UserError, match="already holds a run: continue it with --resume"):
        train(wanted(cut), resume=False)


# One writer.

HOLD = "import sys, time; from pathlib import Path; from alignx_fast.lock import only_writer\n"
HOLD += "with only_writer(Path(sys.argv[1])): print('held', flush=True); time.sleep(600)"


def test_one_writer_and_a_lock_that_cannot_go_stale(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    folder = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=rf"Process {other.pid} on .* is at work in {folder}: wait for it to end"):
            train(wanted(tmp_path), resume=True)
        other.send_signal(signal.SIGKILL)
    with only_writer(folder):
        assert f"Process {other.pid} on" in caplog.text  # it did not end its work
        assert json.loads((folder / "lock.json").read_text())["process"] == os.getpid()
        with pytest.raises(UserError, match=f"Process {os.getpid()} on"), only_writer(folder):
            pass
        shutil.copytree(folder, tmp_path / "copy")
    with only_writer(tmp_path / "copy"):
        pass
    assert list(folder.iterdir()) == list((tmp_path / "copy").iterdir()) == []


def test_a_child_that_outlives_the_writer_does_not_hold_the_lock(tmp_path: Path) -> None:
    with only_writer(tmp_path):
        child = os.fork()
        if not child:
            signal.pause()
    try:
        with only_writer(tmp_path):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


# Moved.


def test_a_moved_run_finds_the_base_of_its_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = settings(tmp_path, "run", tuning="lora", lora={"rank": 2})
    chosen.output = Path("run")
    train(chosen, resume=False)
    (tmp_path / "other").mkdir()
    (tmp_path / "run").rename(tmp_path / "other" / "moved")
    assert open_trained("other/moved").tokenizer is not None
    monkeypatch.chdir(tmp_path / "other")
    assert open_trained("moved/align/model").tokenizer is not None
    chosen.output = Path("moved")
    shutil.rmtree("moved/model")
    train(chosen, resume=True)
