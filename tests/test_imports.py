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
    "config": {"errors"},
    "environment": set(),
    "recipes": {"errors"},
    "data": {"errors", "config", "files"},
    "models": {"errors", "config"},
    "memory": {"errors", "config", "models", "kernels"},
    "evaluation": {"errors", "config", "data", "models", "kernels"},
    "report": {"errors", "files"},
    "training": {"errors", "config", "files", "environment", "data", "models", "memory", "evaluation", "report", "kernels"},
    "verbs": {
        "errors",
        "config",
        "files",
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
    """Parts of our packages that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in names:
            first, _, rest = name.partition(".")
            if first == "alignx_kernels":
                found.add("kernels")
            elif first == "alignx_fast":
                found.add(rest.split(".")[0])
            elif first in ("benchmarks", "tests"):
                found.add(first)
    return found


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
