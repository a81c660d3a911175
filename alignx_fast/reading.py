"""YAML as the settings mean it: each key stands once, and a text or path is what is written, never a number, a date or a truth value."""

import re
import types
from pathlib import Path
from typing import Annotated, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

from alignx_fast.errors import UserError

TAG = "tag:yaml.org,2002:"
SCALARS = {TAG + name for name in ("str", "int", "float", "bool", "null", "merge", "value")}
OTHER_NUMBERS = re.compile(r"[-+]?0[0-9_]+|.*:.*")
"""What YAML 1.1 reads as octal (010) or in base 60 (1:30), which nobody means."""


class _Loader(yaml.SafeLoader):
    """Knows no dates: no setting is one."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - the library's own name for a table that it only reads
        first: [(tag, pattern) for tag, pattern in resolvers if tag != TAG + "timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def read_tree(path: Path, group: type[BaseModel]) -> dict[str, object]:
    """The nested keys of a YAML file that holds the settings of `group`.

    Raises:
        UserError: the file cannot be read, is not YAML, names a key twice or does not hold keys.
    """
    try:
        tree = _parse(path.read_text(encoding="utf-8"), group)
    except OSError as error:
        raise UserError(
            f"Cannot read {path}: {error.strerror}. Check the path, or list recipes with `alignx-fast recipes`."
        ) from None
    except _TwiceError as error:
        raise UserError(f"{path} (line {error.line}): {error}.") from None
    except RecursionError:
        raise UserError(f"{path} is nested too deeply for settings.") from None
    except (yaml.YAMLError, ValueError) as error:
        where = getattr(error, "problem_mark", None)
        line = f" (line {where.line + 1})" if where else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split()).rstrip(".")
        raise UserError(f"{path}{line} is not valid YAML: {problem}.") from None
    tree = {} if tree is None else tree
    if not isinstance(tree, dict):
        raise UserError(f"{path} must hold `key: value` lines, not a {type(tree).__name__}.")
    return tree


def read_value(text: str, kind: object, option: str) -> object:
    """A value of the command line for a setting of type `kind` (None: unknown): texts as they were typed, anything else as YAML.

    Quotes around all of a text are taken off, an empty value is None, and so is `null` where the setting may be None.

    Raises:
        UserError: it names a key twice, or is nested too deeply.
    """
    try:
        value = _parse(text, kind)
        node = yaml.compose(text, Loader=_Loader) if is_text(kind) else None
    except _TwiceError as error:
        raise UserError(f"{option}: {error}.") from None
    except RecursionError:
        raise UserError(f"{option} is nested too deeply for settings.") from None
    except (yaml.YAMLError, ValueError):
        return text
    if not is_text(kind) or (isinstance(node, yaml.ScalarNode) and node.style in ("'", '"')):
        return value
    as_list = isinstance(value, list) and any(get_origin(member) is list for member in members(kind))
    is_none = value is None and not text.lstrip().startswith("#")  # YAML sees nothing but a comment there
    return value if is_none or as_list else text


def members(kind: object) -> list[object]:
    """The types that a setting may have: unions taken apart, without what is annotated to them."""
    origin = get_origin(kind)
    if origin is Annotated:
        return members(get_args(kind)[0])
    if origin in (Union, types.UnionType):
        return [member for part in get_args(kind) for member in members(part)]
    return [kind]


def is_text(kind: object) -> bool:
    """Whether a setting is a text, a path, one of some words, or a list of these."""

    def texts(member: object) -> bool:
        if get_origin(member) is Literal:
            return all(isinstance(choice, str) for choice in get_args(member))
        return member in (str, Path) or (get_origin(member) is list and is_text(get_args(member)[0]))

    given = [member for member in members(kind) if member is not types.NoneType]
    return bool(given) and all(map(texts, given))


def kind_of(dotted: str, group: type[BaseModel]) -> object:
    """The type of the setting of a dotted name; None where there is none."""
    kind: object = group
    for name in dotted.split("."):
        kind = _inside(kind, name)
    return kind


class _TwiceError(Exception):
    """A key that stands twice."""

    def __init__(self, key: str, line: int, before: int) -> None:
        self.line = line
        super().__init__(f"`{key}` stands here a second time, after line {before}: keep one of them")


def _parse(text: str, kind: object) -> object:
    loader = _Loader(text)
    try:
        node = loader.get_single_node()
        return None if node is None else _Reader(loader).value(node, kind)
    finally:
        loader.dispose()


class _Reader:
    """Makes the values of a parsed text, each as the type of its setting asks."""

    def __init__(self, loader: _Loader) -> None:
        self.loader = loader
        self.checked: set[int] = set()  # by id: what an alias repeats is the same object

    def value(self, node: yaml.Node, kind: object) -> object:
        if isinstance(node, yaml.MappingNode) and node.tag == TAG + "map":
            self._merge(node)
            return {self._key(key): self.value(item, _inside(kind, self._key(key))) for key, item in node.value}
        if isinstance(node, yaml.SequenceNode) and node.tag == TAG + "seq":
            return [self.value(item, _inside(kind, None)) for item in node.value]
        if isinstance(node, yaml.ScalarNode) and node.tag in SCALARS:
            return self._scalar(node, kind)
        raise yaml.constructor.ConstructorError(None, None, f"settings have no values of type {node.tag}", node.start_mark)

    def _scalar(self, node: yaml.ScalarNode, kind: object) -> object:
        text = str(node.value)
        if node.tag in (TAG + "merge", TAG + "value"):  # a lone << or =
            return text
        may_be_none = types.NoneType in members(kind)
        if is_text(kind) and (node.tag != TAG + "null" or (text == "~" and not may_be_none)):
            return text
        if node.tag in (TAG + "int", TAG + "float") and OTHER_NUMBERS.fullmatch(text):
            return text
        try:
            return self.loader.construct_object(node)
        except ValueError as error:
            raise yaml.constructor.ConstructorError(None, None, str(error), node.start_mark) from None

    def _merge(self, node: yaml.MappingNode) -> None:
        """Refuse keys that stand twice, then put in what `<<` takes from elsewhere."""
        if id(node) in self.checked:
            return
        self.checked.add(id(node))
        lines: dict[str, int] = {}
        for key, _ in node.value:
            name, line = self._key(key), key.start_mark.line + 1
            if name in lines:
                raise _TwiceError(name, line, lines[name])
            lines[name] = line
        self.loader.flatten_mapping(node)

    @staticmethod
    def _key(node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise yaml.constructor.ConstructorError(None, None, "a key must be a word", node.start_mark)
        return str(node.value)


def _inside(kind: object, name: str | None) -> object:
    """The type of what a group, a dictionary (by name) or a list (name None) holds; None where that is unknown."""
    for member in members(kind):
        if name is None and get_origin(member) is list:
            return get_args(member)[0]
        if name is not None and get_origin(member) is dict:
            return get_args(member)[1]
        if name is not None and isinstance(member, type) and issubclass(member, BaseModel) and name in member.model_fields:
            return member.model_fields[name].annotation
    return None
