"""Docstrings as pages: what they say of one parameter a line becomes a list, and so do `Raises:` and `Source:`."""

import re

import griffe

ITEM = re.compile(r"(?P<names>\w+(?: \[[^\]]*\])?(?:, \w+(?: \[[^\]]*\])?)*): (?P<text>\S.*)")


class ParameterLists(griffe.Extension):
    """Griffe extension, named in mkdocs.yml."""

    def on_function(self, *, func: griffe.Function, **_: object) -> None:
        """Rewrite the docstring of a function."""
        if func.docstring is not None:
            known = {parameter.name for parameter in func.parameters} | {"Raises", "Source"}
            func.docstring.value = with_lists(func.docstring.value, known)


def with_lists(docstring: str, known: set[str]) -> str:
    """Every unindented line `name: text` whose name is known as an item of a list."""
    lines: list[str] = []
    for line in docstring.splitlines():
        item = ITEM.match(line)
        if item and re.split(r"\W", item["names"])[0] in known:
            if lines and lines[-1] and not lines[-1].startswith(("- ", "    ")):
                lines.append("")
            line = f"- `{item['names']}`: {item['text']}"
        lines.append(line)
    return "\n".join(lines)
