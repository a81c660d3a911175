"""What cannot work is refused before the first run, in a sentence that names the variant, and nothing is written."""

import json
from pathlib import Path

import pytest
from support.studies import read_study, study_tree, text, write_lines

from alignx_fast import cli, recipes
from alignx_fast.errors import UserError
from alignx_fast.study import run as run_module
from alignx_fast.study.layout import Layout, run_settings
from alignx_fast.study.run import run_study
from alignx_fast.study.spec import Study, load_study, merged
from alignx_fast.training.folder import write_settings


@pytest.fixture
def no_process(monkeypatch: pytest.MonkeyPatch) -> list[Study]:
    """Runs and the page are left out; the list tells which studies got as far as that."""
    started: list[Study] = []

    class NoRunner:
        def __init__(self, tasks: list[object], jobs: int) -> None: ...

        def run(self) -> list[object]:
            return []

    monkeypatch.setattr(run_module, "Runner", NoRunner)
    monkeypatch.setattr(run_module, "write_results", started.append)
    return started


BROKEN = {
    "a layer that does not exist": (
        {"variants.short.model.align_layer": 9},
        "Variant short: model.align_layer is 9, but the model has",
    ),
    "a missing file": (
        {"variants.short.data.parallel": [{"path": "{data}/pears.jsonl"}]},
        r"Variant short: .*pears.jsonl",
    ),
    "no row left": ({"variants.short.data.languages": ["sw"]}, "Variant short: No usable row"),
    "a package that is missing": ({"variants.short.tracking": ["wandb"]}, "Variant short: tracking names wandb"),
    "no such model": ({"variants.base.model.path": "./nothing"}, "Variant base: .*nothing"),
    "a language without sentences": (
        {"settings.evaluation.languages": ["en", "sw"]},
        "names sw, and no held-out sentence is in it",
    ),
    "a language that is none": ({"settings.evaluation.languages": ["en", "xx"]}, "Unknown language code 'xx'"),
    "no held-out sentences": ({"settings.data.evaluation": None}, "name a file of them with `data.evaluation`"),
    "a file of the scores": ({"settings.evaluation.spbleu_model": "./nothing.model"}, "There is no file nothing.model"),
    "another shape": ({"variants.short.model.tiny_width": 96}, "Variant short sets model.tiny_width"),
}


@pytest.mark.parametrize("mistake", BROKEN)
def test_a_broken_variant_is_named_and_nothing_is_written(
    mistake: str, data: Path, tmp_path: Path, no_process: list[Study]
) -> None:
    changes, words = BROKEN[mistake]
    tree = study_tree(data, tmp_path / "out")
    for key, value in changes.items():
        tree = merged(tree, {key: json.loads(json.dumps(value).replace("{data}", str(data)))})
    with pytest.raises(UserError, match=words) as error:
        run_study(read_study(tree, tmp_path), 1)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()
    assert not no_process


def test_test_sentences_in_training_data_are_refused_unless_told_otherwise(
    data: Path, tmp_path: Path, no_process: list[Study]
) -> None:
    held_out = [{"id": str(i), "texts": {lang: text(lang, i) for lang in ("en", "de")}} for i in (3, 100, 101)]
    tree = merged(
        study_tree(data, tmp_path / "out"),
        {"settings.data.evaluation": str(write_lines(tmp_path / "leaky.jsonl", held_out))},
    )
    with pytest.raises(UserError, match=r"Variant plain: 1 rows of the data of stage align hold sentences of .*leaky.jsonl"):
        run_study(read_study(tree, tmp_path), 1)
    assert not (tmp_path / "out").exists()
    run_study(read_study(tree | {"drop_test_sentences": True}, tmp_path), 1)
    assert len(no_process) == 1


def test_a_study_goes_on_only_with_what_it_was_started_with(data: Path, tmp_path: Path, no_process: list[Study]) -> None:
    pairs = write_lines(
        tmp_path / "pairs.jsonl",
        [{"src_lang": "en", "tgt_lang": "de", "src": text("en", i), "tgt": text("de", i)} for i in range(40)],
    )
    tree = merged(study_tree(data, tmp_path / "out"), {"settings.data.parallel": [{"path": str(pairs)}]})
    study = read_study(tree, tmp_path)
    run_study(study, 1)
    run_study(study, 1)
    scores = Layout(study.output).evaluation(study.variants[0], None)
    other = read_study(merged(tree, {"settings.evaluation.sentences": 5}), tmp_path)
    run_study(other, 1)  # nothing has been scored yet
    scores.parent.mkdir()
    scores.write_text("{}")
    with pytest.raises(UserError, match=r"evaluations was scored with another value of evaluation.sentences: give the same"):
        run_study(study, 1)
    run_study(other, 1)
    pairs.write_text(pairs.read_text().replace("cat", "cap"))
    with pytest.raises(UserError, match=r"The data of stage align of variant plain is not what .*out was started with"):
        run_study(other, 1)


def test_a_run_folder_with_other_settings_is_refused(data: Path, tmp_path: Path, no_process: list[Study]) -> None:
    tree = study_tree(data, tmp_path / "out")
    study = read_study(tree, tmp_path)
    run_study(study, 1)
    run = Layout(study.output).run(study.variants[1], 0)
    as_it_ran = no_process[-1]
    write_settings(run_settings(as_it_ran, as_it_ran.variants[1], 0))
    (run / "model").mkdir()
    run_study(study, 1)
    with pytest.raises(
        UserError, match=r"Variant plain: .*runs/plain/seed-0 was trained with another value of align.learning_rate"
    ):
        run_study(read_study(merged(tree, {"settings.align.learning_rate": 0.5}), tmp_path), 1)


def test_the_phrasebook_brings_its_own_sentences(data: Path, tmp_path: Path, no_process: list[Study]) -> None:
    changes: dict[str, object] = {
        "settings.data": {"evaluation": None, "languages": ["en", "sw"], "parallel": [{"path": "builtin:phrasebook"}]}
    }
    study = read_study(merged(study_tree(data, tmp_path / "out"), changes), tmp_path)
    run_study(study, 1)
    assert no_process[0].evaluation.languages == ["en", "sw"]
    lines = (tmp_path / "out" / "sentences.jsonl").read_text().splitlines()
    assert {"en", "sw"} <= set(json.loads(lines[0])["texts"])


def test_two_at_once_are_refused(data: Path, tmp_path: Path, no_process: list[Study], monkeypatch: pytest.MonkeyPatch) -> None:
    study = read_study(study_tree(data, tmp_path / "out"), tmp_path)
    monkeypatch.setattr(run_module, "write_results", lambda _: run_study(study, 1))
    with pytest.raises(UserError, match="is at work in"):
        run_study(study, 1)


@pytest.mark.parametrize("name", recipes.study_names())
def test_the_small_version_of_a_study_passes_all_checks(name: str, data: Path, tmp_path: Path, no_process: list[Study]) -> None:
    changes = {"data.cache_dir": str(data / "cache")}
    study = load_study(recipes.find_study(name), changes, output=tmp_path / "out", smoke=True)
    run_study(study, 1)
    assert [variant.name for variant in no_process[0].variants] == [variant.name for variant in study.variants]


def test_a_failed_run_ends_in_exit_code_1(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_study(study_tree(data, tmp_path / "out"), tmp_path)
    asked: list[tuple[Study, int]] = []
    monkeypatch.setattr("alignx_fast.verbs.study.run_study", lambda study, jobs: asked.append((study, jobs)) or ["a failure"])
    with pytest.raises(SystemExit) as stop:
        cli.app(
            ["study", str(tmp_path / "study-file.yaml"), "--jobs", "2", "--align.max_steps", "7"], result_action="return_value"
        )
    assert stop.value.code == 1
    ((study, jobs),) = asked
    assert (study.variants[1].settings.align.max_steps, jobs) == (7, 2)
