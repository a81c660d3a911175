"""Recipes and studies that come with the package: list, find, copy."""

import difflib
import os
from pathlib import Path

from alignx_fast.errors import UserError

FOLDER = Path(__file__).parent
STUDIES = FOLDER / "studies"
SCHEMA = FOLDER / "alignx-fast.schema.json"
"""JSON schema of the settings, as `alignx-fast schema` prints it: every recipe names it in its first line."""
FIRST_LINE = f"# yaml-language-server: $schema={SCHEMA.name}"


def names() -> list[str]:
    """All recipe names, quickstart first."""
    return sorted((file.stem for file in FOLDER.glob("*.yaml")), key=lambda name: (name != "quickstart", name))


def study_names() -> list[str]:
    """All study names."""
    return sorted(file.stem for file in STUDIES.glob("*.yaml"))


def purpose(name: str) -> str:
    """The first line of the opening comment of a recipe or a study after the one for editors."""
    file = STUDIES / f"{name}.yaml" if name in study_names() else FOLDER / f"{name}.yaml"
    lines = file.read_text(encoding="utf-8").splitlines()
    return next(line for line in lines if line != FIRST_LINE).removeprefix("# ").rstrip(":")


def find(recipe: str) -> Path:
    """The file of a recipe name, or the file itself.

    Raises:
        UserError: neither a recipe nor a file.
    """
    return _find(recipe, "recipe", FOLDER, names())


def find_study(study: str) -> Path:
    """The file of a study name, or the file itself.

    Raises:
        UserError: neither a study nor a file.
    """
    return _find(study, "study", STUDIES, study_names())


def _find(name: str, kind: str, folder: Path, known: list[str]) -> Path:
    if name in known:
        return folder / f"{name}.yaml"
    path = Path(os.path.expanduser(name))
    if path.is_file():
        return path
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"Did you mean the {kind} `{near[0]}`?" if near else "`alignx-fast recipes` lists recipes and studies."
    raise UserError(f"{name} is neither a {kind} nor a file. {hint}")


def copy(name: str, target: Path) -> Path:
    """Copy a recipe or a study to a file or folder, and the schema that a recipe names beside it; never over another file.

    Raises:
        UserError: no such recipe, or another file of that name exists.
    """
    source = find_study(name) if name in study_names() else find(name)
    target = target / source.name if target.is_dir() else target
    if target.exists():
        raise UserError(f"{target} already exists; give another file name.")
    if source.parent == STUDIES:
        target.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
        return target
    schema, text = target.parent / SCHEMA.name, SCHEMA.read_text(encoding="utf-8")
    if schema.exists() and schema.read_text(encoding="utf-8") != text:
        raise UserError(
            f"{schema} is not of this version: renew it with `alignx-fast schema > {schema}`, or copy to another folder."
        )
    target.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    schema.write_text(text, encoding="utf-8")
    return target
