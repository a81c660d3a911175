"""A study as processes: trained, scored, killed, resumed, stopped, failing in part."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file
from support.studies import read_study, study_tree

from alignx_fast.files import read_json
from alignx_fast.report.log import read_log
from alignx_fast.study.layout import Layout, run_settings
from alignx_fast.study.processes import Runner
from alignx_fast.study.run import run_study
from alignx_fast.study.spec import Study
from alignx_fast.study.tasks import Step, Task, tasks_of
from alignx_fast.training.run import train


@dataclass(frozen=True)
class Done:
    """A study that has run to its end."""

    study: Study
    tree: dict[str, object]
    output: str
    seconds: float

    @property
    def folder(self) -> Path:
        return self.study.output


def started(tree: dict[str, object], folder: Path) -> subprocess.Popen[str]:
    """The command as a user gives it, in a process group of its own."""
    file = folder / "study-file.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return subprocess.Popen(
        [sys.executable, "-m", "alignx_fast", "study", str(file)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        process_group=0,
    )


@pytest.fixture(scope="module")
def done(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Done:
    folder = tmp_path_factory.mktemp("whole")
    tree = study_tree(data, folder / "out")
    began = time.monotonic()
    process = started(tree, folder)
    output, _ = process.communicate()
    assert process.returncode == 0, output
    return Done(read_study(tree, folder), tree, output, time.monotonic() - began)


def test_a_study_leaves_what_the_docs_say(done: Done) -> None:
    for part in (
        "study.yaml",
        "comparison.json",
        "comparison.csv",
        "comparison.md",
        "comparison.tex",
        "study.html",
        "evaluations/base.json",
        "evaluations/plain/seed-0.json",
        "runs/plain/seed-0/report.html",
        "runs/short/seed-0/model/model.safetensors",
        "logs/plain/seed-0.log",
    ):
        assert (done.folder / part).stat().st_size > 0, part
    assert not list(done.folder.rglob("*.partial")) + list(done.folder.rglob("*.parts.json"))
    assert "[3/3] short, seed 0: trained in" in done.output
    assert " left\n" in done.output
    comparison = read_json(done.folder / "comparison.json")
    assert (comparison["models"], comparison["baseline"]) == (["base", "plain", "short"], "plain")
    assert any(row["name"] == "chrF++ en-de" for row in comparison["rows"])


def test_a_common_stage_1_is_trained_once_and_gives_the_same_model(done: Done, tmp_path: Path) -> None:
    layout, short = Layout(done.folder), done.study.variants[2]
    assert read_log(layout.run(short, 0) / "log.jsonl").steps("align") == read_log(
        layout.run(done.study.variants[1], 0) / "log.jsonl"
    ).steps("align")
    assert "align  4/4" not in layout.log(short, 0).read_text()
    assert "align  4/4" in layout.log(done.study.variants[1], 0).read_text()
    alone = run_settings(read_study(yaml.safe_load(layout.study_file.read_text()), tmp_path), short, 0)
    alone.output = tmp_path / "alone"
    train(alone, resume=False)
    mine, other = (load_file(run / "model" / "model.safetensors") for run in (alone.output, layout.run(short, 0)))
    assert all(bool((mine[name] == other[name]).all()) for name in mine)


def test_a_second_call_has_nothing_left_to_do(done: Done, caplog: pytest.LogCaptureFixture) -> None:
    table = (done.folder / "comparison.csv").read_text()
    stamps = {path: path.stat().st_mtime_ns for kind in ("*.safetensors", "*.log") for path in done.folder.rglob(kind)}
    assert run_study(done.study, 1) == []
    assert stamps == {path: path.stat().st_mtime_ns for kind in ("*.safetensors", "*.log") for path in done.folder.rglob(kind)}
    assert table == (done.folder / "comparison.csv").read_text()


def test_a_study_that_was_killed_at_any_point_gives_the_same_table(done: Done, data: Path, tmp_path: Path) -> None:
    point = random.uniform(0.1, 0.9) * done.seconds
    tree = study_tree(data, tmp_path / "out")
    process = started(tree, tmp_path)
    time.sleep(point)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    again = started(tree, tmp_path)
    output, _ = again.communicate()
    assert again.returncode == 0, f"killed after {point:.1f} s: {output}"
    table = (tmp_path / "out" / "comparison.csv").read_text()
    assert table == (done.folder / "comparison.csv").read_text(), f"killed after {point:.1f} s"


def copied(done: Done, tmp_path: Path) -> list[Task]:
    """The tasks of a copy of the finished study, which has no processes of its own."""
    shutil.copytree(done.folder, tmp_path / "out")
    resolved = yaml.safe_load((tmp_path / "out" / "study.yaml").read_text()) | {"output": str(tmp_path / "out")}
    return tasks_of(read_study(resolved, tmp_path))


def test_a_run_that_fails_holds_up_none_of_the_others(
    done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = copied(done, tmp_path)
    for task in tasks:
        task.scores_file.unlink()

    def command(task: Task, step: Step) -> list[str]:
        if task.variant.name == "plain":
            return [sys.executable, "-c", "print('alignx-fast: The disk is full.'); raise SystemExit(2)"]
        return ["cp", str(done.folder / task.scores_file.relative_to(tmp_path / "out")), str(task.scores_file)]

    monkeypatch.setattr(Task, "command", command)
    (failure,) = Runner(tasks, 2).run()
    assert (failure.task.title, failure.reason) == ("plain, seed 0", "The disk is full.")
    assert [task.next_step() for task in tasks] == [None, Step.SCORE, None]


def test_a_process_that_leaves_no_result_has_failed(done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = copied(done, tmp_path)
    tasks[0].scores_file.write_text("{")
    monkeypatch.setattr(Task, "command", lambda task, step: ["true"])
    assert [failure.task for failure in Runner(tasks, 1).run()] == [tasks[0]]


def test_the_same_stage_1_is_waited_for(done: Done, tmp_path: Path) -> None:
    _, plain, short = copied(done, tmp_path)
    assert plain.settings is not None
    assert short.settings is not None
    assert not short.waits({plain.settings.output})  # it has results
    shutil.rmtree(short.settings.output)
    assert not short.waits({plain.settings.output})  # stage 1 is there already
    shutil.rmtree(plain.settings.output / "align" / "model")
    assert short.waits({plain.settings.output})
    assert not short.waits(set())  # the other one has failed


def test_ctrl_c_stops_every_process(done: Done, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = copied(done, tmp_path)
    for task in tasks:
        task.scores_file.unlink()
    sleep = "import time, pathlib, sys; pathlib.Path(sys.argv[1]).touch(); time.sleep(60)"
    monkeypatch.setattr(Task, "command", lambda task, step: [sys.executable, "-c", sleep, f"{task.log_file}.on"])
    runner = Runner(tasks, 2)
    look = Runner._look

    def interrupt(runner: Runner) -> None:
        if len(list((tmp_path / "out" / "logs").rglob("*.on"))) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        look(runner)

    monkeypatch.setattr(Runner, "_look", interrupt)
    began = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        runner.run()
    assert time.monotonic() - began < 50
    assert all(each.process.poll() is not None for each in runner.running)
