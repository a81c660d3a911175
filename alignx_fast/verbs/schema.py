"""`alignx-fast schema`: the settings as a JSON schema, by which editors complete and check recipes."""

import json

from alignx_fast.config import Settings


def schema_text() -> str:
    """The JSON schema of a recipe with the meaning of every setting, indented, in the order of the settings."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Settings.model_json_schema(),
        "title": "Settings of an alignx-fast run",
    }
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"
