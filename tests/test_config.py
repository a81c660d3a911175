"""Settings as they are written: lists of words, and the words that YAML takes for something else."""

import pytest

from alignx_fast.config import load_settings
from alignx_fast.errors import UserError


def test_words_may_be_separated_by_commas() -> None:
    settings = load_settings(None, {"data.languages": "no, de,", "stages": "align", "tracking": "wandb,trackio"})
    assert settings.data.languages == ["no", "de"]
    assert (settings.stages, settings.tracking) == (["align"], ["wandb", "trackio"])


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("align.tokens_per_micro_batch", 0, "`align.tokens_per_micro_batch` is 0: must be at least 1"),
        ("align.tokens_per_micro_batch", "big", "`align.tokens_per_micro_batch` is 'big': input should be a valid integer"),
        ("model.gradient_checkpointing", -2, "`model.gradient_checkpointing` is -2: must be true, false or a number of layers"),
        ("model.offload_checkpoints", True, "command line: offload_checkpoints needs .* `--model.gradient_checkpointing true`"),
        ("model.foo", 1, "unknown setting `model.foo`"),
        ("align.contrastive.weight", "x", "`align.contrastive.weight` is 'x': input should be a valid number"),
    ],
)
def test_impossible_values_are_named(setting: str, value: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        load_settings(None, {setting: value})


@pytest.mark.parametrize("value", [False, ["de", False]])
def test_norwegian_is_not_false(value: object) -> None:
    with pytest.raises(UserError, match=r"data.languages` is .*False.*: YAML reads no as false, so write that word in quotes"):
        load_settings(None, {"data.languages": value})
