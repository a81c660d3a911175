"""Imports run one way, and the command line answers at once."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BASE = {"errors", "files", "contents", "lock", "stages", "fields", "logs", "hardware", "printing"}
"""Small modules that anybody may use."""
LOSS_SETTINGS = {"errors", "fields", "losses", "kernels"}
DATA_AND_MODELS = BASE | {"config", "losses", "data", "models", "kernels"}
MAY_IMPORT = {
    "errors": set(),
    "files": set(),
    "contents": {"files"},
    "lock": {"errors", "files"},
    "stages": set(),
    "fields": set(),
    "logs": {"printing"},
    "printing": set(),
    "process": set(),
    "hardware": {"config", "process"},
    # A loss's settings lie below the configuration, which is made of them; the list of losses of a stage lies above it.
    "losses": LOSS_SETTINGS,
    "losses.next_token": LOSS_SETTINGS | {"models"},
    "losses.build": {"config", "losses", "models"},
    "reading": {"errors"},
    "config": {"errors", "fields", "reading", "stages", "losses", "corpora.settings"},
    "corpora.settings": {"fields"},
    "corpora": BASE | {"config", "data"},
    "environment": BASE,
    "recipes": {"errors"},
    "data": BASE | {"config"},
    "models": BASE | {"config", "process"},
    "memory": BASE | {"config", "losses", "models"},
    "evaluation": DATA_AND_MODELS,
    "evaluation.results": set(),
    "evaluation.intervals": {"evaluation.results"},
    "report": BASE | {"evaluation.results"},
    "comparison": {
        "errors",
        "files",
        "evaluation.results",
        "evaluation.intervals",
        "evaluation.significance",
        "evaluation.spbleu",
    },
    "training": DATA_AND_MODELS | {"process", "environment", "memory", "evaluation", "report"},
    "study": DATA_AND_MODELS | {"reading", "recipes", "evaluation", "report", "training", "comparison"},
    "verbs": DATA_AND_MODELS
    | {"environment", "memory", "evaluation", "report", "training", "comparison", "study", "corpora", "recipes"},
    "stops": set(),
    "streams": set(),
    "places": set(),
    "cli": {"entry", "errors", "files", "config", "reading", "recipes", "training", "verbs", "report"},
    "entry": BASE | {"stops", "streams", "places", "process", "environment", "cli"},
    "__main__": {"entry"},
    "__init__": set(),
}
"""What each part, or a module of it that is named apart, may import besides its own part."""


def run_time_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but what only a type checker reads."""
    for node in ast.iter_child_nodes(tree):
        if not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            yield node
            yield from run_time_nodes(node)


def imported(file: Path) -> set[str]:
    """What a file imports of our packages, anywhere in it: dotted names from the part on."""
    imports = set()
    for node in run_time_nodes(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            first, _, rest = name.partition(".")
            if first == "alignx_kernels":
                imports.add("kernels")
            elif first == "alignx_fast":
                imports.add(rest)
            elif first in ("benchmarks", "tests"):
                imports.add(first)
    return imports


def within(name: str, allowed: str) -> bool:
    """Whether a dotted name is an allowed part or module, or lies in it."""
    return f"{name}.".startswith(f"{allowed}.")


@pytest.mark.parametrize("file", sorted((ROOT / "alignx_fast").rglob("*.py")), ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_run_one_way(file: Path) -> None:
    module = ".".join(file.relative_to(ROOT / "alignx_fast").with_suffix("").parts)
    key = max((key for key in MAY_IMPORT if within(module, key)), key=len)
    own = module.partition(".")[0] if key == module.partition(".")[0] else key
    outside = {name for name in imported(file) if not any(within(name, allowed) for allowed in {own} | MAY_IMPORT[key])}
    assert outside == set()


def test_settings_import_no_loss_that_needs_a_model() -> None:
    """`config` may import the package `losses`; what it gets of it must not lead to transformers."""
    code = "import sys, alignx_fast.config; print([m for m in ('transformers', 'datasets', 'peft') if m in sys.modules])"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


@pytest.mark.parametrize("file", sorted((ROOT / "kernels").rglob("*.py")), ids=lambda f: str(f.relative_to(ROOT)))
def test_kernels_stand_alone(file: Path) -> None:
    assert imported(file) <= {"kernels"}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, alignx_fast.cli; print([m for m in ('torch', 'transformers', 'datasets', 'pydantic') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


IMPORT_ALL = """
import logging, os, pkgutil, sys, warnings
import torch, transformers, datasets, numpy, matplotlib, pandas  # libraries may change their own process; we may not
from transformers import AutoModelForCausalLM, Trainer

def state():
    levels = {name: logger.level for name, logger in logging.Logger.manager.loggerDict.items() if isinstance(logger, logging.Logger)}
    handlers = {name: len(logging.getLogger(name).handlers) for name in ("", "transformers", "bitsandbytes")}
    return dict(os.environ), levels, handlers, list(warnings.filters), {name for name, module in sys.modules.items() if module is None}

before = state()
import alignx_fast
names = [module.name for module in pkgutil.walk_packages(alignx_fast.__path__, "alignx_fast.")]
for name in names:
    if not name.endswith("__main__"):
        __import__(name)
after = state()
assert len(names) > 60, names
for old, new in zip(before, after):
    changed = {key: (old[key], new[key]) for key in old if old[key] != new.get(key)} if isinstance(old, dict) else old != new
    assert not changed, changed
assert before[0] == after[0]
assert before[2] == after[2]
print("unchanged")
"""


def test_importing_the_package_changes_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=False)
    assert done.stdout == "unchanged\n", done.stderr


def test_the_package_runs_as_a_module() -> None:
    """`python -m alignx_fast` is the command, its exit codes included."""
    shown = subprocess.run([sys.executable, "-m", "alignx_fast", "recipes"], capture_output=True, text=True, check=True).stdout
    assert "quickstart" in shown
    wrong = subprocess.run(
        [sys.executable, "-m", "alignx_fast", "report", "nowhere"], capture_output=True, text=True, check=False
    )
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("alignx-fast: ")
    assert len(wrong.stderr.strip().splitlines()) == 1
