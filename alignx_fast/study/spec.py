"""A study file: shared settings, variants, seeds; read strictly and resolved to the settings of every run."""

import copy
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Generic, TypeVar

from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from alignx_fast.config import EvaluationSettings, Settings, explain
from alignx_fast.errors import UserError
from alignx_fast.fields import AnyPath, Folder, Group
from alignx_fast.reading import read_tree
from alignx_fast.recipes import find

Tree = dict[str, object]
"""Settings, nested or by dotted names."""
Content = TypeVar("Content")
VariantName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
"""Also the name of a folder."""

STUDY_OWN = ("seed", "output", "name", "evaluation", "data.evaluation")
"""Beginnings of the settings that are the same for all variants, or made by the study."""


def _each_once(seeds: list[int]) -> list[int]:
    if len(set(seeds)) < len(seeds):
        raise ValueError("names a seed twice")
    return seeds


Seeds = Annotated[list[Annotated[int, Field(ge=0, lt=2**32)]], Field(min_length=1), AfterValidator(_each_once)]


class Smoke(Group, Generic[Content]):
    """What `--smoke` changes, so that the study runs in minutes."""

    seeds: Seeds
    """Seeds in place of the study's."""
    settings: Content
    """Settings on top of the shared ones."""
    variants: dict[VariantName, Content | None] = Field({})
    """Settings on top of those of a variant."""


class StudyFile(Group, Generic[Content]):
    """The file as it is written; `Content` is `Tree`, or `Settings` for the reader, which takes the types of the values from there."""

    name: str
    """Title of the page."""
    output: Folder
    """Study folder: runs, evaluations, comparison and page."""
    seeds: Seeds = Field([0, 1, 2])
    """Every variant is trained once with each."""
    baseline: str
    """The variant that the others are compared with."""
    recipe: AnyPath | None = None
    """A recipe name or a YAML file whose settings all variants share."""
    settings: Content | None = None
    """Settings that all variants share, on top of the recipe's."""
    drop_test_sentences: bool = False
    """Train without the rows that hold sentences of the evaluation; false refuses data that has such rows."""
    variants: dict[VariantName, Content | None] = Field(min_length=1)
    """Settings of each variant on top of the shared ones; `train: false` is a model that is scored as it is."""
    smoke: Smoke[Content] | None = None


@dataclass(frozen=True)
class Variant:
    """One variant."""

    name: str
    changes: Tree
    """Its own settings, without `train`."""
    trained: bool
    settings: Settings
    """All of its settings; seed, name and output are those of no run."""


@dataclass(frozen=True)
class Study:
    """A study whose settings are all read."""

    name: str
    output: Path
    seeds: tuple[int, ...]
    baseline: str
    drop_test_sentences: bool
    shared: Settings
    variants: tuple[Variant, ...]

    @property
    def evaluation(self) -> EvaluationSettings:
        """How every model is scored."""
        return self.shared.evaluation

    def as_tree(self) -> Tree:
        """The study as a file that resolves to itself."""
        return {
            "name": self.name,
            "output": str(self.output),
            "seeds": list(self.seeds),
            "baseline": self.baseline,
            "drop_test_sentences": self.drop_test_sentences,
            "settings": self.shared.model_dump(mode="json", exclude={"name", "output", "seed"}),
            "variants": {
                variant.name: variant.changes | ({} if variant.trained else {"train": False}) for variant in self.variants
            },
        }


def load_study(path: Path, overrides: Mapping[str, object], *, output: Path | None = None, smoke: bool = False) -> Study:
    """Read a study file and the settings of all its variants.

    Args:
        overrides: dotted settings on top of the shared ones.
        output: a study folder in place of the file's.
        smoke: with the changes of the file's `smoke` group, and `-smoke` at the end of the study folder's name.

    Raises:
        UserError: the file cannot be read, or a key or a value in it is wrong; names the variant.
    """
    file = _read(path)
    seeds, folder = file.seeds, output or file.output
    shared = merged(_recipe(file.recipe), file.settings or {})
    extra: dict[str, Tree | None] = {}
    if smoke:
        if file.smoke is None:
            raise UserError(f"{path} has no `smoke` group, which says what --smoke changes: add one, or leave --smoke out.")
        seeds, extra, shared = file.smoke.seeds, file.smoke.variants, merged(shared, file.smoke.settings)
        folder = output or file.output.with_name(f"{file.output.name}-smoke")
        _check_known(path, "smoke.variants", extra, file.variants)
    _check_known(path, "baseline", [file.baseline], file.variants)
    shared = merged(shared, overrides)
    return Study(
        name=file.name,
        output=folder,
        seeds=tuple(seeds),
        baseline=file.baseline,
        drop_test_sentences=file.drop_test_sentences,
        shared=_settings(shared, str(path)),
        variants=tuple(
            _variant(name, shared, merged(tree or {}, extra.get(name) or {}), f"{path}, variant {name}")
            for name, tree in file.variants.items()
        ),
    )


def merged(tree: Mapping[str, object], changes: Mapping[str, object]) -> Tree:
    """A copy of nested settings with others on top, which may be nested or have dotted names."""
    result = copy.deepcopy(dict(tree))
    for name, value in changes.items():
        group, _, rest = name.partition(".")
        inner = {rest: value} if rest else value
        before = result.get(group)
        result[group] = merged(before if isinstance(before, dict) else {}, inner) if isinstance(inner, dict) else inner
    return result


def _read(path: Path) -> StudyFile[Tree]:
    try:
        return StudyFile[Tree].model_validate(read_tree(path, StudyFile[Settings]))
    except ValidationError as error:
        raise UserError(explain(error, str(path), StudyFile[Tree])) from None


def _recipe(recipe: str | None) -> Tree:
    return {} if recipe is None else read_tree(find(recipe), Settings)


def _variant(name: str, shared: Tree, tree: Tree, origin: str) -> Variant:
    changes = merged({}, tree)
    trained = changes.pop("train", True)
    if not isinstance(trained, bool):
        raise UserError(f"{origin}: `train` is {trained!r}: give true or false.")
    for own in STUDY_OWN:
        group, _, inner = own.partition(".")
        part = changes.get(group)
        if group in changes and (not inner or (isinstance(part, dict) and inner in part)):
            raise UserError(
                f"{origin} sets `{own}`, which all variants of a study have in common: set seeds and output for the study, and the "
                "evaluation under `settings`."
            )
    return Variant(name, changes, trained, _settings(merged(shared, changes), origin))


def _settings(tree: Tree, origin: str) -> Settings:
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise UserError(explain(error, origin)) from None


def _check_known(path: Path, key: str, names: Mapping[str, object] | list[str], variants: Mapping[str, object]) -> None:
    for name in names:
        if name not in variants:
            near = difflib.get_close_matches(name, variants, n=1, cutoff=0.5)
            hint = f"Did you mean `{near[0]}`?" if near else f"The variants are {', '.join(variants)}."
            raise UserError(f"{path}: `{key}` names the variant {name!r}, which does not exist. {hint}")
