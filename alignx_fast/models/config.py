"""The configuration of a model, and what the settings ask of it, checked before any weight is read."""

import importlib.util
from pathlib import Path

from transformers import AutoConfig, PreTrainedConfig

from alignx_fast.config import ModelSettings
from alignx_fast.errors import UserError, first_line

ENCODERS = {"bert", "roberta", "xlm-roberta", "camembert", "electra"}
"""Families that attend in both directions unless told to be decoders."""


def load_config(path: str, settings: ModelSettings) -> PreTrainedConfig:
    """The model's configuration.

    Raises:
        UserError: no such model, the align layer lies outside of it, or 4-bit weights without bitsandbytes.
    """
    if settings.tuning == "qlora":
        need_bitsandbytes("model.tuning is qlora", "--model.tuning lora")
    _check_folder(path)
    try:
        config: PreTrainedConfig = AutoConfig.from_pretrained(path, trust_remote_code=settings.trust_remote_code)
    except Exception as error:
        raise UserError(f"Cannot load model {path!r}: {first_line(error)}") from None
    if hasattr(config, "is_decoder") and config.model_type in ENCODERS:
        config.is_decoder = True
    align_layer(settings, config)
    return config


def check_unquantised(path: str, config: PreTrainedConfig) -> None:
    """Refuse weights that are quantised already: `qlora` quantises the original ones itself.

    Raises:
        UserError: they are.
    """
    scheme = getattr(config, "quantization_config", None) or getattr(config.get_text_config(), "quantization_config", None)
    if scheme is None:
        return
    name = scheme.get("quant_method") if isinstance(scheme, dict) else getattr(scheme, "quant_method", None)
    raise UserError(
        f"The weights of {path} are quantised already ({getattr(name, 'value', name)}): give the original model in `model.path`; "
        "`--model.tuning qlora` quantises it when it is loaded."
    )


def align_layer(settings: ModelSettings, config: PreTrainedConfig) -> int:
    """The layer to align: as asked, else half of the layers.

    Raises:
        UserError: the layer asked for does not exist or is the last one.
    """
    layers = int(config.get_text_config().num_hidden_layers)
    layer = settings.align_layer or max(1, layers // 2)
    if layer > layers:
        raise UserError(
            f"model.align_layer is {layer}, but the model has {layers} layers; choose 1 to {layers} (default {layers // 2})."
        )
    return layer


def need_bitsandbytes(setting: str, instead: str) -> None:
    """Refuse a setting that cannot run without bitsandbytes, before anything else is done.

    Args:
        setting: what was asked, as the beginning of a sentence.
        instead: options of the command line that need no bitsandbytes.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"{setting}, which needs bitsandbytes: install it with `pip install bitsandbytes`, or use `{instead}`.")


def _check_folder(path: str) -> None:
    """A path on this machine must be a model folder; anything else is a name on the hub, which only loading can check."""
    folder = Path(path).expanduser()
    if not (folder.exists() or path.startswith((".", "/", "~"))):
        return
    if (folder / "adapter_config.json").is_file():
        raise UserError(
            f"{path} holds adapters, not a whole model: merge them with `alignx-fast export {path} NEW_FOLDER`, and give that folder in "
            "`model.path`."
        )
    if not (folder / "config.json").is_file():
        raise UserError(
            f"{path} is not a model folder (it holds no config.json); give a Hugging Face name or folder in `model.path`."
        )
    if not list(folder.glob("*.safetensors")):
        raise UserError(
            f"The model folder {path} holds no *.safetensors weights; convert or download them (other formats are not loaded)."
        )
