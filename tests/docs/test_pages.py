"""The docs say what is true of the code: every command, every setting, and only commands and settings that exist."""

import itertools
import re
import shlex
from pathlib import Path

import pytest

from alignx_fast.cli import app, overrides_from
from alignx_fast.config import known_keys, load_settings
from alignx_fast.recipes import find, names
from docs import generate

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
CODE = re.compile(r"^```(?:bash|python|yaml|json)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
OWN_FILES = {f"{name}.yaml" for name in names()} | {"small.yaml"}
"""Recipes that a reader has copied."""


def commands(page: Path) -> list[str]:
    """Every `alignx-fast ...` line in a code block of a page, without comments."""
    blocks = CODE.findall(page.read_text(encoding="utf-8").replace("\\\n", " "))
    lines = [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("alignx-fast ")]


COMMANDS = [pytest.param(line, id=f"{page.stem}: {line}") for page in PAGES for line in commands(page)]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_in_the_docs_can_be_run(line: str) -> None:
    words = shlex.split(line.partition(" > ")[0])[1:]
    verb, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    settings = bound.arguments.get("settings", ())
    if verb.__name__ == "evaluate":  # further models come first
        settings = tuple(itertools.dropwhile(lambda word: not word.startswith("--"), settings))
    recipe = bound.arguments.get("recipe")
    file = None if recipe is None or recipe in OWN_FILES else find(recipe)
    load_settings(file, overrides_from(settings))
    assert verb.__name__.partition("_")[0] in generate.verbs()


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 20


def test_every_command_has_a_page() -> None:
    pages = generate.pages()
    for verb in ("train", "plan", "preview", "evaluate", "translate", "export", "report", "doctor", "schema", "recipes"):
        assert f"alignx-fast {verb}" in pages[f"commands/{verb}.md"]
    assert "Continue the run" in pages["commands/train.md"]


def test_every_setting_is_in_the_reference() -> None:
    page = generate.pages()["settings.md"]
    documented = set(re.findall(r"^`([\w.\[\]]+)`$", page, re.MULTILINE))
    groups = {key for key in known_keys() if any(other.startswith(key + ".") for other in known_keys())}
    assert set(known_keys()) - groups <= documented
    assert "data.parallel[].path" in documented
    assert "number > 0; default `0.1`" in page


def test_links_between_files_of_the_repository_become_names() -> None:
    page = generate.pages()["kernels.md"]
    assert "](../" not in page
    assert "benchmarks/GPU_TODO.md" in page


def test_the_python_of_the_readme_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from alignx_fast.training import run

    runs = []
    monkeypatch.setattr(run, "train", lambda settings, *, resume: runs.append(settings))
    whole_run, one_loss = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(encoding="utf-8"), re.M | re.S)
    exec(whole_run, {})
    assert runs[0].align.pairs_per_step == 64
    queries_ND = torch.randn(4, 8, requires_grad=True)
    exec(one_loss, {"queries_ND": queries_ND, "keys_MD": torch.randn(6, 8)})
    assert queries_ND.grad is not None


def test_commands_within_a_command_have_sections_that_links_reach() -> None:
    page = generate.pages()["commands/recipes.md"]
    for name in ("copy", "show"):
        assert f"(#recipes-{name})" in page
        assert page.count(f"\n## recipes {name}\n") == 1
        assert re.search(rf"^alignx-fast recipes {name} [A-Z\[]", page, re.MULTILINE)
