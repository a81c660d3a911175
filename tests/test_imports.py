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
    "stages": set(),
    "config": {"errors"},
    "environment": set(),
    "recipes": {"errors"},
    "data": {"errors", "config", "files"},
    "models": {"errors", "config"},
    "memory": {"errors", "config", "models", "kernels"},
    "evaluation": {"errors", "config", "stages", "data", "models", "kernels"},
    "report": {"errors", "files", "stages", "evaluation.results"},
    "training": {
        "errors",
        "config",
        "files",
        "stages",
        "environment",
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
        "stages",
        "environment",
        "data",
        "models",
        "memory",
        "evaluation",
        "report",
        "training",
        "kernels",
    },
    "cli": {"errors", "environment", "config", "recipes", "training", "verbs", "report"},
}


def imported(file: Path) -> set[str]:
    """What a file imports of our packages, anywhere in it: dotted names from the part on."""
    imports = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
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
    part = file.relative_to(ROOT / "alignx_fast").parts[0].removesuffix(".py")
    if part != "__init__":
        outside = {name for name in imported(file) if not any(within(name, allowed) for allowed in {part} | MAY_IMPORT[part])}
        assert outside == set()


@pytest.mark.parametrize("file", sorted((ROOT / "kernels").rglob("*.py")), ids=lambda f: str(f.relative_to(ROOT)))
def test_kernels_stand_alone(file: Path) -> None:
    assert imported(file) <= {"kernels"}


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys, alignx_fast.cli; print([m for m in ('torch', 'transformers', 'datasets', 'pydantic') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
