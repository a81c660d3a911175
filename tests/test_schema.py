"""The JSON schema of the settings: current, true to what is loaded, and beside every copied recipe."""

import json
from pathlib import Path

import jsonschema
import pytest
import yaml

from alignx_fast import recipes
from alignx_fast.config import known_keys
from alignx_fast.errors import UserError
from alignx_fast.verbs.schema import schema_text

SCHEMA = json.loads(schema_text())


def test_the_copy_beside_the_recipes_is_current() -> None:
    stale = f"renew it with `alignx-fast schema > {recipes.SCHEMA}`"
    assert recipes.SCHEMA.read_text(encoding="utf-8") == schema_text(), stale


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_validates(name: str) -> None:
    jsonschema.validate(yaml.safe_load(recipes.find(name).read_text(encoding="utf-8")), SCHEMA)


@pytest.mark.parametrize(
    "settings",
    [
        {"allign": {}},
        {"align": {"contrastive": {"temprature": 0.1}}},
        {"align": {"pairs_per_step": "many"}},
        {"align": {"pairs_per_step": 1}},
        {"model": {"tuning": "half"}},
    ],
)
def test_mistakes_are_found(settings: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(settings, SCHEMA)


def test_every_setting_has_a_meaning() -> None:
    """Groups explain themselves by their settings."""

    def explained(group: dict[str, object], prefix: str = "") -> list[str]:
        names = []
        for name, setting in group["properties"].items():
            if "$ref" in setting:
                names += [prefix + name, *explained(SCHEMA["$defs"][setting["$ref"].rsplit("/", 1)[1]], f"{prefix}{name}.")]
            else:
                assert setting["description"], prefix + name
                names.append(prefix + name)
        return names

    assert explained(SCHEMA) == known_keys()


def test_a_copied_recipe_takes_its_schema_along(tmp_path: Path) -> None:
    recipes.copy("quickstart", tmp_path)
    beside = tmp_path / "alignx-fast.schema.json"
    assert beside.read_bytes() == recipes.SCHEMA.read_bytes()
    recipes.copy("xglm", tmp_path / "mine.yaml")  # the schema that is there already is the same
    beside.write_text("{}")
    with pytest.raises(UserError, match="is not of this version: renew it with `alignx-fast schema >"):
        recipes.copy("xglm", tmp_path)
    assert not (tmp_path / "xglm.yaml").exists()
    assert beside.read_text() == "{}"
