"""Settings as they are written: lists of words, and the words that YAML takes for something else."""

import pytest

from alignx_fast.config import load_settings
from alignx_fast.errors import UserError


def test_words_may_be_separated_by_commas() -> None:
    settings = load_settings(None, {"data.languages": "no, de,", "stages": "align", "tracking": "wandb,trackio"})
    assert settings.data.languages == ["no", "de"]
    assert (settings.stages, settings.tracking) == (["align"], ["wandb", "trackio"])


@pytest.mark.parametrize("value", [False, ["de", False]])
def test_norwegian_is_not_false(value: object) -> None:
    with pytest.raises(UserError, match=r"data.languages` is .*False.*: YAML reads no as false, so write it in quotes"):
        load_settings(None, {"data.languages": value})
