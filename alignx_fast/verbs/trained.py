"""Opening what a user calls a model: a run folder, a model or adapter folder, or a name on the hub."""

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from alignx_fast.config import Settings, load_settings
from alignx_fast.data.templates import Template, choose
from alignx_fast.errors import UserError
from alignx_fast.models.adapters import Model, saved_tuning
from alignx_fast.models.capture import causal_model
from alignx_fast.models.config import align_layer
from alignx_fast.models.weights import open_model


@dataclass
class Trained:
    """A model ready to be used, with the settings it was trained with (the defaults where there was no run)."""

    model: Model
    tokenizer: PreTrainedTokenizerFast
    settings: Settings
    template: Template
    align_layer: int


def find_model(path: str) -> tuple[str, Path | None]:
    """The model folder (or hub name) of `path`, and its settings file if `path` is a run folder.

    Raises:
        UserError: the run has not finished a stage yet.
    """
    folder = Path(path).expanduser()
    settings = folder / "settings.yaml"
    if not settings.is_file():
        return path, None
    for part in (folder / "model", folder / "instruct" / "model", folder / "align" / "model"):
        if part.exists():
            return str(part), settings
    raise UserError(
        f"The run {path} has not finished a stage yet: continue it with `alignx-fast train ... --output {path} --resume`."
    )


def settings_of(
    model_path: str, file: Path | None, overrides: dict[str, object] | None = None, *, exact: bool = False
) -> Settings:
    """The settings of a model that `find_model` has found; how adapters were trained stands beside them, unless `overrides` name it.

    Args:
        exact: read the weights in the number format of training too, which may be slow on this machine.
    """
    settings = load_settings(file, overrides)
    if file is None:
        settings.model.path = model_path
    for name, value in saved_tuning(Path(model_path)).items():
        if (exact or name == "tuning") and f"model.{name}" not in (overrides or {}):
            setattr(settings.model, name, value)
    return settings


def open_trained(path: str, overrides: dict[str, object] | None = None) -> Trained:
    """Load the model that `path` names."""
    model_path, file = find_model(path)
    settings = settings_of(model_path, file, overrides)
    model, tokenizer = open_model(model_path, settings.model)
    layer = align_layer(settings.model, causal_model(model).config)
    return Trained(model, tokenizer, settings, choose(settings.data.template, tokenizer), layer)
