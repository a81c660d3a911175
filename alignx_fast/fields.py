"""What settings are made of: the base of all groups, and the field types that read YAML and the command line kindly."""

import os
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

ALL_LINEAR = "all-linear"


class Group(BaseModel):
    """Base of all groups of settings: unknown keys are refused, numbers are finite, defaults are checked too."""

    model_config = ConfigDict(extra="forbid", validate_default=True, use_attribute_docstrings=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: object, info: ValidationInfo) -> object:
        """pydantic would read true as 1."""
        if isinstance(value, bool) and cls.model_fields[str(info.field_name)].annotation in (
            int,
            float,
            int | None,
            float | None,
        ):
            raise ValueError("must be a number")
        return value


def split_words(value: object) -> object:
    """`a,b` as [a, b], which spares brackets and quotes on the command line."""
    if isinstance(value, str):
        return [word.strip() for word in value.split(",") if word.strip()]
    if isinstance(value, bool) or (isinstance(value, list) and any(isinstance(word, bool) for word in value)):
        raise ValueError("YAML reads no as false, so write that word in quotes, as in ['no', de], and nothing at all as []")
    return value


def split_numbers(value: object) -> object:
    """`8,16` as [8, 16], and a single number as a list of one."""
    if isinstance(value, int) and not isinstance(value, bool):
        return [value]
    return split_words(value)


def at_least_one(value: object) -> object:
    """Numbers below 1 are refused; words pass."""
    if isinstance(value, int) and value < 1:
        raise ValueError("must be at least 1")
    return value


def not_negative(value: bool | int) -> bool | int:
    """true, false, or a number of layers."""
    if value < 0:
        raise ValueError("must be true, false or a number of layers")
    return value


def at_home(path: str) -> str:
    """`~` as the home folder; a path of a user who does not exist stays as it is."""
    if "\0" in path:
        raise ValueError("a path holds no NUL character")
    return os.path.expanduser(path)


AnyPath = Annotated[str, AfterValidator(at_home)]
"""A file, a folder or a name on the hub."""
Folder = Annotated[Path, AfterValidator(lambda path: Path(at_home(str(path))))]
Words = Annotated[list[str], BeforeValidator(split_words, json_schema_input_type=list[str] | str)]
Layers = Annotated[
    list[Annotated[int, Field(ge=1)]],
    Field(min_length=1),
    BeforeValidator(split_numbers, json_schema_input_type=list[int] | int | str),
]
Modules = Annotated[
    Annotated[list[str], Field(min_length=1)] | Literal["all-linear"],
    BeforeValidator(
        lambda value: ALL_LINEAR if value in (ALL_LINEAR, [ALL_LINEAR]) else split_words(value),
        json_schema_input_type=list[str] | str,
    ),
]
