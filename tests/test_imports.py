"""Imports run one way, and the command line answers at once."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAY_IMPORT = {
    "errors": set(),
    "files": set(),
    "process": set(),
    "logs": set(),
    "__main__": {"cli"},
    "config": {"errors"},
    "hardware": {"config"},
    "environment": {"hardware"},
    "recipes": {"errors"},
    "data": {"errors", "config", "files"},
    "models": {"errors", "config", "hardware", "process"},
    "memory": {"errors", "config", "hardware", "models", "kernels"},
    "evaluation": {"errors", "config", "hardware", "data", "models", "kernels"},
    "report": {"errors", "files"},
    "training": {
        "errors",
        "config",
        "files",
        "environment",
        "hardware",
        "data",
        "models",
        "memory",
        "evaluation",
        "report",
        "kernels",
    },
    "verbs": {
        "errors",
        "config",
        "files",
        "environment",
        "hardware",
        "data",
        "models",
        "memory",
        "evaluation",
        "report",
        "training",
        "kernels",
    },
    "cli": {"errors", "environment", "process", "logs", "config", "recipes", "training", "verbs", "report"},
}


def imported(file: Path) -> set[str]:
    """Parts of our packages that a file imports, anywhere in it."""
    parts = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            first, _, rest = name.partition(".")
            if first == "alignx_kernels":
                parts.add("kernels")
            elif first == "alignx_fast":
                parts.add(rest.split(".")[0])
            elif first in ("benchmarks", "tests"):
                parts.add(first)
    return parts


@pytest.mark.parametrize("file", sorted((ROOT / "alignx_fast").rglob("*.py")), ids=lambda f: str(f.relative_to(ROOT)))
def test_imports_run_one_way(file: Path) -> None:
    part = file.relative_to(ROOT / "alignx_fast").parts[0].removesuffix(".py")
    if part != "__init__":
        assert imported(file) - {part} <= MAY_IMPORT[part]


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
