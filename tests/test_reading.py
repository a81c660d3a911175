"""Settings mean what is written: keys that stand twice, texts that look like something else, values that no run can use."""

from pathlib import Path

import pytest

from alignx_fast import cli
from alignx_fast.cli import overrides_from, settings_from
from alignx_fast.config import Settings, load_settings
from alignx_fast.errors import UserError


def read(folder: Path, text: str) -> Settings:
    file = folder / "settings.yaml"
    file.write_text(text)
    return load_settings(file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: a\nseed: 1\nname: b\n", r"settings.yaml \(line 3\): `name` stands here a second time, after line 1: keep one"),
        ("align:\n  max_steps: 3\nalign: {epochs: 1}\n", r"\(line 3\): `align` stands here a second time, after line 1"),
        ("data: {parallel: [{path: a, path: b}]}", r"\(line 1\): `path` stands here a second time"),
        ("a: " + "[" * 5000, "settings.yaml is nested too deeply"),
        ("name: &a [*a]", "settings.yaml is nested too deeply"),
        ("name: " + "[" * 300 + "]" * 300, "`name` is .*: input should be a valid string"),
        ("seed: -1", "`seed` is -1: input should be greater than or equal to 0"),
        ("seed: 4294967296", "`seed` is 4294967296: input should be less than 4294967296"),
        ("seed: 0b_", r"\(line 1\) is not valid YAML"),
        ("align: {epochs: .inf}", "`align.epochs` is inf: input should be a finite number"),
        ("align: {epochs: 1e999}", "`align.epochs` is '1e999': input should be a finite number"),
        ("align: {learning_rate: .nan}", "`align.learning_rate` is nan: input should be a finite number"),
        ("align: {max_steps: yes}", "`align.max_steps` is True: must be a number"),
        ("align: {max_steps: 1:30}", "`align.max_steps` is '1:30'"),
        ("align: {max_steps: 2024-13-45}", "`align.max_steps` is '2024-13-45'"),
        ("name: null", "`name` is None"),
        ('output: "a\\0b"', "a path holds no NUL character"),
        ("name: \0", "is not valid YAML: unacceptable character"),
        ("name: !!python/name:os.system x", "is not valid YAML"),
        ("? [a]\n: 1", r"\(line 1\) is not valid YAML: a key must be a word"),
    ],
)
def test_what_cannot_be_meant_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read(tmp_path, text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["2024-05-01", "2024-13-45", "007", "1e3", "12:30:00", "no", "true", "=", "1_000", "0x10", ".inf"]
)
def test_texts_stay_as_written(tmp_path: Path, text: str) -> None:
    source = f"{{path: {text}, src_lang: no, columns: {{src: {text}}}}}"
    found = read(tmp_path, f"name: {text}\noutput: {text}\ndata: {{languages: [no, de], parallel: [{source}]}}")
    assert (found.name, found.output, found.data.languages) == (text, Path(text), ["no", "de"])
    (parallel,) = found.data.parallel
    assert (parallel.path, parallel.src_lang, parallel.tgt_lang, parallel.columns) == (text, "no", None, {"src": text})
    typed = settings_from("quickstart", ("--name", text, "--output", text))
    assert (typed.name, typed.output) == (text, Path(text))


def test_numbers_are_decimal(tmp_path: Path) -> None:
    assert read(tmp_path, "seed: 010").seed == 10
    assert read(tmp_path, "align: {learning_rate: 1e-3}").align.learning_rate == 1e-3


def test_what_aliases_repeat_stands_once(tmp_path: Path) -> None:
    found = read(tmp_path, "align: &both {max_steps: 3, epochs: 1}\ninstruct: {<<: *both, max_steps: 4}")
    assert (found.align.max_steps, found.instruct.max_steps, found.instruct.epochs) == (3, 4, 1)


@pytest.mark.parametrize("text", ["runs/trial #2", "a: b", "[draft]", "{x}", "*x", "- x", "#1", "!x", "100%"])
def test_the_command_line_takes_texts_as_typed(text: str) -> None:
    found = settings_from("quickstart", ("--output", text, f"--name={text}", "--data.evaluation", text))
    assert (found.output, found.name, found.data.evaluation) == (Path(text), text, text)


def test_the_command_line_reads_what_is_no_text_as_yaml() -> None:
    options = ("--data.languages", "[no, de]", "--data.evaluation", "null", "--name", "'7'", "--align", "{max_steps: 3}")
    found = settings_from("quickstart", (*options, "--model.gradient_checkpointing", "--stages=align"))
    assert (found.data.languages, found.data.evaluation, found.name) == (["no", "de"], None, "7")
    assert (found.align.max_steps, found.model.gradient_checkpointing, found.stages) == (3, True, ["align"])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--output"], "--output needs a value"),
        (["--align.max_steps", "--name", "x"], "--align.max_steps needs a value"),
        (["--output="], "`output` is None"),
        (["--data.parallel", "[{path: a, path: b}]"], "--data.parallel: `path` stands here a second time"),
        (["--seed", "[" * 5000], "--seed is nested too deeply"),
    ],
)
def test_options_that_cannot_be_meant(options: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words):
        settings_from("quickstart", tuple(options))


def test_home_is_expanded_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    source = "{path: ~/a, target_path: ~/b}"
    text = f"output: ~/run\nmodel: {{path: ~/m}}\ndata: {{parallel: [{source}], instructions: [{{path: ~/c}}], evaluation: ~/d}}"
    found = read(tmp_path, text + "\nevaluation: {task_folder: ~/t}")
    (parallel,), (instructions,) = found.data.parallel, found.data.instructions
    paths = [found.output, found.model.path, parallel.path, parallel.target_path, instructions.path, found.data.evaluation]
    assert [str(path) for path in [*paths, found.evaluation.task_folder]] == [
        str(tmp_path / name) for name in ("run", "m", "a", "b", "c", "d", "t")
    ]
    assert load_settings(None, overrides_from(("--output=~",))).output == tmp_path


def test_paths_of_commands_are_expanded_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("alignx_fast.verbs.export.export_model", lambda *arguments: print(*arguments))
    cli.app(["export", "~/run", "~/plain"], result_action="return_value")
    assert capsys.readouterr().out.split() == [str(tmp_path / "run"), str(tmp_path / "plain")]


def test_settings_without_a_recipe_are_of_the_quickstart(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Settings, bool]] = []
    monkeypatch.setattr("alignx_fast.training.run.train", lambda settings, **options: asked.append((settings, options["resume"])))
    cli.app(["train", "--output", "elsewhere", "--resume"], result_action="return_value")
    ((settings, resume),) = asked
    assert (settings.name, str(settings.output), resume) == ("quickstart", "elsewhere", True)
