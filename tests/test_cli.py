"""The command line as a user meets it: a whole tiny run, then every verb on it, then every mistake."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from support.tiny_models import tiny_model

from alignx_fast import cli
from alignx_fast.models.tiny import build_tokenizer

LANGUAGES = {"en": "cat dog sun tree red", "de": "Katze Hund Sonne Baum rot", "sw": "paka mbwa jua mti nyekundu"}


def command(*arguments: object, code: int = 0) -> None:
    """Run `alignx-fast ARGUMENTS` in this process and check its exit code."""
    before = sys.argv
    sys.argv = ["alignx-fast", *map(str, arguments)]
    try:
        cli.main()
        exit_code: object = 0
    except SystemExit as stop:
        exit_code = stop.code or 0
    finally:
        sys.argv = before
    assert exit_code == code


def sentence(lang: str, i: int) -> str:
    words = LANGUAGES[lang].split()
    return " ".join(words[(i // 5**k) % 5] for k in range(3)) + f" {i}"


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small corpus and a settings file."""
    folder = tmp_path_factory.mktemp("cli")
    pairs = [
        {"src_lang": a, "tgt_lang": b, "src": sentence(a, i), "tgt": sentence(b, i), "gid": str(i)}
        for i in range(60)
        for a, b in (("en", "de"), ("en", "sw"))
    ]
    (folder / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    tasks = [{"instruction": "Say it twice.", "input": str(i), "output": f"{i} {i}", "lang": "en"} for i in range(40)]
    (folder / "tasks.jsonl").write_text("".join(json.dumps(task) + "\n" for task in tasks))
    settings = {
        "output": str(folder / "run"),
        "model": {"tiny_width": 64, "tiny_layers": 2, "tiny_vocabulary": 400},
        "data": {
            "parallel": [{"path": str(folder / "pairs.jsonl")}],
            "instructions": [{"path": str(folder / "tasks.jsonl")}],
            "cache_dir": str(folder / "cache"),
            "dev_pairs": 6,
        },
        "align": {"pairs_per_step": 8, "max_steps": 4, "compare_ntp_only": True, "matching": {"width": 8}},
        "instruct": {"rows_per_step": 8, "max_steps": 3},
        "evaluation": {"translation_sentences": 1, "max_new_tokens": 4},
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings))
    return folder


@pytest.fixture(scope="module")
def run(workplace: Path) -> Path:
    command("train", workplace / "settings.yaml")
    return workplace / "run"


def test_a_run_leaves_what_the_readme_says(run: Path, workplace: Path, capsys: pytest.CaptureFixture) -> None:
    for part in (
        "settings.yaml",
        "environment.json",
        "log.jsonl",
        "data/align.json",
        "data/instruct.json",
        "model/config.json",
        "report.html",
    ):
        assert (run / part).stat().st_size > 0, part
    evaluations = {path.stem for path in (run / "evaluation").glob("*.json")}
    assert evaluations == {"before", "ntp_only", "after_align", "after"}
    assert not list(run.rglob("*.partial"))
    stages = [json.loads(line)["stage"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert list(dict.fromkeys(stages)) == ["ntp_only", "align", "instruct"]
    # a second call has nothing left to train and says the same again
    stamps = {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    command("train", workplace / "settings.yaml", "--resume")
    assert stamps == {path: path.stat().st_mtime_ns for path in run.rglob("*.safetensors")}
    assert "Report:" in capsys.readouterr().out


def test_verbs_on_the_run(run: Path, workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command("evaluate", run, "--evaluation.sentences", 2, "--output", tmp_path / "scores.json")
    assert json.loads((tmp_path / "scores.json").read_text())["sentences"] == 2
    command("translate", run, "cat dog sun 1", "--from", "en", "--to", "de")
    command("export", run, tmp_path / "plain")
    assert "differ from the trained model's by 0.00%" in capsys.readouterr().out
    assert (tmp_path / "plain" / "model.safetensors").exists()
    command("report", run)
    command("preview", workplace / "settings.yaml", "--rows", 2)
    shown = capsys.readouterr().out
    assert "Katze" in shown or "cat" in shown
    command("doctor")
    command("recipes")
    command("recipes", "show", "quickstart")
    command("recipes", "copy", "quickstart", tmp_path)
    assert (tmp_path / "quickstart.yaml").exists()
    assert "packed attention" in capsys.readouterr().out


def test_several_models_side_by_side(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Models are scored on the same sentences, each into its own file, and compared with the one that is named."""
    options = ["--evaluation.sentences", 4, "--against", run / "base", "--output", tmp_path / "scores"]
    command("evaluate", run, run / "align" / "model", *options)
    files = {file.name for file in (tmp_path / "scores").iterdir()}
    assert files == {"run.json", "model.json", "base.json", *(f"comparison.{end}" for end in ("json", "csv", "md", "tex"))}
    table = json.loads((tmp_path / "scores" / "comparison.json").read_text())
    assert (table["models"], table["baseline"]) == (["run", "model", "base"], "base")
    assert {row["group"] for row in table["rows"]} == {"translation", "retrieval", "representations", "prediction"}
    said = capsys.readouterr().out
    assert "reading sentences" in said
    command("evaluate", run, run / "base", "--evaluation.sentences", 4, "--output", tmp_path / "one.json", code=2)
    assert "give a folder" in capsys.readouterr().err
    command("evaluate", run, tmp_path / "nothing", "--evaluation.sentences", 4, code=2)
    said = capsys.readouterr()
    assert "nothing" in said.err
    assert "reading sentences" not in said.out, "the first model was scored before the second was looked for"


def test_sentences_that_a_run_has_seen(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Scores on sentences that were trained on are refused; another model may be scored on them."""
    texts = [{"id": str(i), "texts": {code: sentence(code, i) for code in LANGUAGES}} for i in range(60)]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(text) + "\n" for text in texts))
    options = ["--data.evaluation", tmp_path / "test.jsonl", "--evaluation.sentences", 3]
    command("evaluate", run, *options, code=2)
    assert "was trained on" in capsys.readouterr().err
    command("evaluate", run, *options, "--allow-overlap")
    command("evaluate", run / "base", *options)
    command("evaluate", run / "base", *options, "--evaluation.languages", "en,deu,sv", code=2)
    assert "evaluation.languages names sv, and no held-out sentence is in it; the nearest are sw" in capsys.readouterr().err


@pytest.mark.parametrize("tuning", ["lora", "qlora"])
def test_adapters_train_resume_and_export(
    run: Path, workplace: Path, tmp_path: Path, tuning: str, capsys: pytest.CaptureFixture
) -> None:
    options = [
        "--model.path",
        run / "model",
        "--model.tuning",
        tuning,
        "--model.lora.rank",
        4,
        "--align.compare_ntp_only",
        "false",
    ]
    command("train", workplace / "settings.yaml", "--output", tmp_path / "run", *options)
    assert (tmp_path / "run" / "model" / "adapter_model.safetensors").exists()
    command("export", tmp_path / "run", tmp_path / "plain")
    said = capsys.readouterr().out.replace("\n", " ")
    assert float(said.split("trained model's by ")[1].split("%")[0]) < 1.0
    command("translate", tmp_path / "plain", "cat dog sun 1", "--to", "de")


def test_what_does_not_change_the_model_may_change_when_resumed(
    run: Path, workplace: Path, capsys: pytest.CaptureFixture
) -> None:
    options = ["--output", run, "--resume", "--align.save_every", "3", "--align.tokens_per_micro_batch", "333"]
    command("train", workplace / "settings.yaml", *options)
    assert yaml.safe_load((run / "settings.yaml").read_text())["align"]["save_every"] == 3


def test_scores_that_are_damaged_or_of_other_sentences_are_taken_again(
    run: Path, workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    copy = tmp_path / "run [2] :smile:"
    shutil.copytree(run, copy)
    good = json.loads((copy / "evaluation" / "before.json").read_text())
    for name, content in (("before", ""), ("after", '{"sentences": 3'), ("ntp_only", "[]"), ("after_align", "{}")):
        (copy / "evaluation" / f"{name}.json").write_text(content)
    command("train", workplace / "settings.yaml", "--resume", "--output", copy)
    said = capsys.readouterr().out
    assert f"Model:  {copy}/model" in said.replace("\n", " ").replace("  ", " ").replace("Model: ", "Model:  ")
    assert json.loads((copy / "evaluation" / "before.json").read_text())["retrieval"] == good["retrieval"]
    options = ["--resume", "--output", copy, "--evaluation.sentences", "2"]
    command("train", workplace / "settings.yaml", *options, code=2)
    assert "another value of evaluation.sentences" in capsys.readouterr().err
    command("train", workplace / "settings.yaml", *options, "--accept-changes")
    for name in ("before", "ntp_only", "after_align", "after"):
        assert json.loads((copy / "evaluation" / f"{name}.json").read_text())["sentences"] == 2
        assert (copy / "evaluation-before-change-1" / f"{name}.json").exists()


MISTAKES = {
    "unknown recipe": (["train", "quikstart"], "Did you mean the recipe `quickstart`?"),
    "unknown setting": (["train", "{s}", "--align.pairs_per_stp", "4"], "Did you mean `align.pairs_per_step`?"),
    "wrong type": (["train", "{s}", "--align.pairs_per_step", "many"], "align.pairs_per_step"),
    "unknown stage": (["train", "{s}", "--stages", "align,tune"], "stages"),
    "missing file": (["train", "{s}", "--data.parallel", "[{path: pears.jsonl}]"], "pears.jsonl"),
    "no such model": (["train", "{s}", "--model.path", "./nothing"], "nothing"),
    "model without weights": (["train", "{s}", "--model.path", "{empty}"], "safetensors"),
    "align layer": (
        ["train", "{s}", "--model.path", "{model}", "--model.align_layer", "9"],
        "model.align_layer is 9, but the model has 3 layers",
    ),
    "malformed line": (["train", "{s}", "--data.parallel", "[{path: {bad}}]"], "bad.jsonl:2"),
    "wrong column": (["train", "{s}", "--data.parallel", "[{path: {column}}]"], "column.jsonl"),
    "unknown language": (["train", "{s}", "--data.languages", "[en, xx]"], "xx"),
    "nothing left": (["train", "{s}", "--data.languages", "[fr]"], "No usable row"),
    "run exists": (["train", "{s}", "--output", "{run}"], "--resume"),
    "other settings": (["train", "{s}", "--output", "{run}", "--resume", "--seed", "5"], "another value of seed"),
    "not a run": (["report", "{empty}"], "not a run"),
    "evaluate without sentences": (["evaluate", "{model}"], "--data.evaluation"),
    "export over something": (["export", "{run}", "{empty}"], "already exists"),
    "stray word": (["train", "{s}", "quickly"], "quickly"),
    "tracking without its package": (["train", "{s}", "--tracking", "wandb"], "`pip install wandb`"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_one_sentence(
    mistake: str, run: Path, workplace: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text('{"model_type": "llama"}')
    if mistake == "not a run":
        (tmp_path / "empty" / "config.json").unlink()
    good = json.dumps({"src_lang": "en", "tgt_lang": "de", "src": "a", "tgt": "b"})
    (tmp_path / "bad.jsonl").write_text(good + "\n{oops\n")
    (tmp_path / "column.jsonl").write_text('{"src_lang": "en", "tgt_lang": "de", "source": "a", "tgt": "b"}\n')
    if "{model}" in MISTAKES[mistake][0]:
        tiny_model().save_pretrained(tmp_path / "model")
        build_tokenizer(["a b c"], 300).save_pretrained(tmp_path / "model")
    places = {"s": workplace / "settings.yaml", "run": run, "empty": tmp_path / "empty", "model": tmp_path / "model"}
    places |= {"bad": tmp_path / "bad.jsonl", "column": tmp_path / "column.jsonl"}
    arguments = list(MISTAKES[mistake][0])
    for name, path in places.items():
        arguments = [argument.replace("{" + name + "}", str(path)) for argument in arguments]
    if arguments[0] == "train" and "--output" not in arguments:
        arguments += ["--output", str(tmp_path / "new")]
    capsys.readouterr()  # what making the model said
    command(*arguments, code=2)
    said = capsys.readouterr().err
    assert MISTAKES[mistake][1] in said
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "Stopped."),
        (OSError(28, "No space left on device"), 2, "No space left on the disk"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"), 2, "No space left on the disk"),
        (
            ModuleNotFoundError("No module named 'peft'", name="peft"),
            2,
            "peft is not installed: `pip install peft`",
        ),
    ],
    ids=["control-c", "full disk", "full disk within torch.save", "missing package"],
)
def test_what_stops_a_run_is_one_sentence(
    error: BaseException, code: int, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def stop() -> None:
        raise error

    monkeypatch.setattr("alignx_fast.verbs.doctor.examine", stop)
    command("doctor", code=code)
    said = capsys.readouterr().err
    assert words in said
    assert len(said.strip().splitlines()) == 1


def test_doctor_names_what_to_install(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr("alignx_fast.verbs.doctor.versions", lambda: {"flash-attn": None, "peft": None})
    monkeypatch.setitem(sys.modules, "alignx_fast.models.attention", None)
    command("doctor")
    said = " ".join(capsys.readouterr().out.replace("\u2502", " ").split())
    assert "pip install 'alignx-fast[flash-attn]'" in said
    assert "missing (pip install peft)" in said
    assert "Install what is missing first" in said
