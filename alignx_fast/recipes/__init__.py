"""Recipes that come with the package: list, find, copy."""

import difflib
from pathlib import Path

from alignx_fast.errors import UserError

FOLDER = Path(__file__).parent


def names() -> list[str]:
    """All recipe names, quickstart first."""
    return sorted((file.stem for file in FOLDER.glob("*.yaml")), key=lambda name: (name != "quickstart", name))


def purpose(name: str) -> str:
    """The first line of a recipe's opening comment."""
    return (FOLDER / f"{name}.yaml").read_text(encoding="utf-8").splitlines()[0].removeprefix("# ").rstrip(":")


def find(recipe: str) -> Path:
    """The file of a recipe name, or the file itself.

    Raises:
        UserError: neither a recipe nor a file.
    """
    if recipe in names():
        return FOLDER / f"{recipe}.yaml"
    path = Path(recipe).expanduser()
    if path.is_file():
        return path
    near = difflib.get_close_matches(recipe, names(), n=1)
    hint = f"Did you mean the recipe `{near[0]}`?" if near else "`alignx-fast recipes` lists the recipes."
    raise UserError(f"{recipe} is neither a recipe nor a file. {hint}")


def copy(name: str, target: Path) -> Path:
    """Copy a recipe to a file or folder, never over an existing file.

    Raises:
        UserError: no such recipe, or the file exists.
    """
    source = find(name)
    target = target / source.name if target.is_dir() else target
    if target.exists():
        raise UserError(f"{target} already exists; give another file name.")
    target.write_text(source.read_text(encoding="utf-8"), encoding="utf-8")
    return target
