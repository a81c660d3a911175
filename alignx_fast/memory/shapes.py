"""Model configurations for the plan: read from a folder or the local cache, else from published figures, else from the hub."""

from pathlib import Path

from transformers import AutoConfig, PreTrainedConfig

from alignx_fast.config import BUILTIN_TINY, ModelSettings
from alignx_fast.errors import UserError
from alignx_fast.models.tiny import tiny_config

_LLAMA_3_8B = {
    "model_type": "llama",
    "vocab_size": 128256,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
}


def _xglm(width: int, inner: int, layers: int, heads: int) -> dict[str, object]:
    sizes = {"d_model": width, "ffn_dim": inner, "num_layers": layers, "attention_heads": heads}
    return {"model_type": "xglm", "vocab_size": 256008} | sizes


PUBLISHED: dict[str, dict[str, object]] = {
    "google/gemma-2b": {
        "model_type": "gemma",
        "vocab_size": 256000,
        "hidden_size": 2048,
        "intermediate_size": 16384,
        "num_hidden_layers": 18,
        "num_attention_heads": 8,
        "num_key_value_heads": 1,
        "head_dim": 256,
    },
    "mistralai/Mistral-7B-v0.3": _LLAMA_3_8B | {"model_type": "mistral", "vocab_size": 32768, "sliding_window": None},
    "meta-llama/Llama-2-7b-hf": _LLAMA_3_8B | {"vocab_size": 32000, "intermediate_size": 11008, "num_key_value_heads": 32},
    "meta-llama/Meta-Llama-3-8B-Instruct": _LLAMA_3_8B,
    "Qwen/Qwen3-8B": _LLAMA_3_8B
    | {"model_type": "qwen3", "vocab_size": 151936, "intermediate_size": 12288, "num_hidden_layers": 36, "head_dim": 128},
    "meta-llama/Llama-3.2-1B": _LLAMA_3_8B
    | {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16, "head_dim": 64, "tie_word_embeddings": True},
    "facebook/xglm-564M": _xglm(1024, 4096, 24, 16),
    "facebook/xglm-1.7B": _xglm(2048, 8192, 24, 16),
    "facebook/xglm-4.5B": _xglm(2048, 16384, 48, 16),
    "facebook/xglm-7.5B": _xglm(4096, 16384, 32, 32),
}
"""Architectures as their authors published them, for models that are gated or not on this machine."""


def read_config(settings: ModelSettings) -> tuple[PreTrainedConfig, str]:
    """The model's configuration, and where it is from: "config", "published figures" or "settings" (`builtin:tiny`).

    Raises:
        UserError: no such model, or it cannot be read from here.
    """
    if settings.path == BUILTIN_TINY:
        return tiny_config(settings, settings.tiny_vocabulary), "settings"
    folder = Path(settings.path).expanduser()
    local = folder.exists() or settings.path.startswith((".", "/", "~"))
    try:
        # The hub is asked last: a plan should answer at once, and without a network.
        return _load(str(folder) if local else settings.path, settings, offline=True), "config"
    except (OSError, ValueError) as error:
        if published := PUBLISHED.get(settings.path):
            kind, values = str(published["model_type"]), {key: value for key, value in published.items() if key != "model_type"}
            return AutoConfig.for_model(kind, **values), "published figures"
        if local:
            raise UserError(f"Cannot read the configuration of {settings.path}: {_first_line(error)}") from None
    try:
        return _load(settings.path, settings, offline=False), "config"
    except (OSError, ValueError) as error:
        raise UserError(f"Cannot read the configuration of {settings.path!r}: {_first_line(error)}") from None


def _load(path: str, settings: ModelSettings, *, offline: bool) -> PreTrainedConfig:
    options = {"trust_remote_code": settings.trust_remote_code, "local_files_only": offline}
    config: PreTrainedConfig = AutoConfig.from_pretrained(path, **options)
    return config


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
