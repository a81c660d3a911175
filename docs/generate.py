"""Pages that are made while the docs are built: the commands from the CLI, the settings from their schema, and files of the repository.

MkDocs calls the functions named `on_...` (`hooks` in mkdocs.yml); nothing that they make is committed.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from alignx_fast.cli import app
from alignx_fast.verbs.schema import schema_text

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT = Path(__file__).parents[1]
REPOSITORY_PAGES = {
    "kernels.md": "kernels/README.md",
    "measured/table.md": "benchmarks/results/TABLE.md",
    "measured/log.md": "benchmarks/LOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
}
"""Page -> the file of the repository that it shows."""

Schema = dict[str, object]
WORDS = {"integer": "whole number", "number": "number", "boolean": "true or false", "string": "text", "object": "mapping"}
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<", "multipleOf": "a multiple of"}


def on_config(config: "MkDocsConfig") -> None:
    """Put the commands into the navigation."""
    for section in config.nav or []:
        if "Commands" in section:
            section["Commands"] = [{verb: f"commands/{verb}.md"} for verb in verbs()]


def on_files(files: "Files", config: "MkDocsConfig") -> "Files":
    """Add the generated pages to those of the folder."""
    from mkdocs.structure.files import File

    for name, content in pages().items():
        files.append(File.generated(config, name, content=content))
    for plot in sorted((ROOT / "benchmarks" / "results").glob("*.svg")):
        files.append(File.generated(config, f"measured/{plot.name}", abs_src_path=str(plot)))
    return files


def on_post_page(output: str, **_: object) -> None:
    """Refuse a page that would load something from another host.

    Raises:
        ValueError: names what the page loads.
    """
    if loaded := re.search(r"""<(?:script|img|iframe|link rel="?stylesheet"?)[^>]*(?:src|href)="?(?:https?:)?//[^">]*""", output):
        raise ValueError(f"A page loads from another host: {loaded[0]}")


def pages() -> dict[str, str]:
    """Every generated page as Markdown."""
    made = {f"commands/{verb}.md": command_page(verb) for verb in verbs()}
    made["settings.md"] = settings_page()
    return made | {page: repository_page(ROOT / file) for page, file in REPOSITORY_PAGES.items()}


def verbs() -> list[str]:
    """The commands of the CLI by name."""
    return sorted(name for name in app if not name.startswith("-"))


def command_page(verb: str) -> str:
    """What `alignx-fast VERB --help` says, as a page; the commands within it as sections."""
    text = app[verb].generate_docs(heading_level=1, usage_name=f"alignx-fast {verb}")
    text = re.sub(r"^## Table of Contents\n.*?(?=^\*\*|^## )", "", text, flags=re.MULTILINE | re.DOTALL)
    # Of a program started by `python -m mkdocs`, a part of that name is left in the usage lines.
    text = re.sub(r"^(alignx-fast [a-z ]+) -m \S+", r"\1", text, flags=re.MULTILINE)
    return re.sub(r"^# .*", f"# alignx-fast {verb}", text, count=1)


def settings_page() -> str:
    """Every setting with its dotted name, type, default and meaning."""
    schema: Schema = json.loads(schema_text())
    lines = [
        "# Settings",
        "",
        "Every setting can stand in a recipe (YAML) or on the command line after the recipe: `alignx-fast train quickstart",
        "--align.pairs_per_step 256`. A name with `[]` belongs to",
        "the entries of a list and stands in a recipe only. An unknown name is refused, and the nearest known one is named.",
    ]
    for name, group in groups(schema):
        lines += ["", f"## {name or 'The run'}", "", str(group.get("description", "") if name else "")]
        for key, setting in own_settings(group).items():
            lines += ["", f"`{name}.{key}`" if name else f"`{key}`", f":   {setting['description']}  "]
            lines += [f"    <small>{kind(schema, setting)}; {default(schema, setting)}</small>"]
    return "\n".join(lines) + "\n"


def groups(schema: Schema, group: Schema | None = None, name: str = "") -> Iterator[tuple[str, Schema]]:
    """(dotted name, schema) of a group of settings and of all groups within it, those of list entries too."""
    group = group or schema
    yield name, group
    for key, setting in properties(group).items():
        items = setting.get("items")
        inner = f"{name}.{key}".lstrip(".")
        if "$ref" in setting:
            yield from groups(schema, referred(schema, setting), inner)
        elif isinstance(items, dict) and "$ref" in items:
            yield from groups(schema, referred(schema, items), f"{inner}[]")


def own_settings(group: Schema) -> dict[str, Schema]:
    """The settings of a group without the groups within it."""
    return {key: setting for key, setting in properties(group).items() if "$ref" not in setting}


def properties(group: Schema) -> dict[str, Schema]:
    """What stands in a group."""
    return group["properties"]  # type: ignore[return-value]


def referred(schema: Schema, reference: Schema) -> Schema:
    """The definition that a `$ref` names."""
    definitions: dict[str, Schema] = schema["$defs"]  # type: ignore[assignment]
    return definitions[str(reference["$ref"]).rpartition("/")[2]]


def kind(schema: Schema, setting: Schema) -> str:
    """The type of a setting in words."""
    if "anyOf" in setting:
        choices: list[Schema] = setting["anyOf"]  # type: ignore[assignment]
        return " or ".join(kind(schema, choice) for choice in choices if choice.get("type") != "null")
    if "const" in setting:
        return f"`{setting['const']}`"
    if "enum" in setting:
        values: list[str] = setting["enum"]  # type: ignore[assignment]
        return ", ".join(f"`{value}`" for value in values[:-1]) + f" or `{values[-1]}`"
    if setting["type"] == "array":
        items: Schema = setting["items"]  # type: ignore[assignment]
        return "list of entries" if "$ref" in items else f"list of {kind(schema, items)}"
    word = "path" if setting.get("format") == "path" else WORDS[str(setting["type"])]
    limits = ", ".join(f"{sign} {setting[limit]}" for limit, sign in LIMITS.items() if limit in setting)
    return f"{word} {limits}".rstrip()


def default(schema: Schema, setting: Schema) -> str:
    """The default as it would stand in a recipe; of an entry only what differs from the entry's own defaults."""
    if "default" not in setting:
        return "required"
    value, items = setting["default"], setting.get("items")
    if value is None:
        return "not set by default"
    if isinstance(value, list) and isinstance(items, dict) and "$ref" in items:
        own = own_settings(referred(schema, items))
        value = [{k: v for k, v in entry.items() if own[k].get("default", ...) != v} for entry in value]
    return f"default `{value if isinstance(value, str) else json.dumps(value)}`"


def repository_page(file: Path) -> str:
    """A Markdown file of the repository; its links to other files become plain names, since those are no pages."""
    text = file.read_text(encoding="utf-8").replace("<details>", '<details markdown="1">')
    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!https?://|#)[^)]+\)", r"\1", text)
