"""Loading a base model as full, lora or qlora, and its tokenizer. Only safetensors; no remote code unless asked for."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    BitsAndBytesConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)

from alignx_fast.config import LoraSettings, ModelSettings
from alignx_fast.errors import UserError
from alignx_fast.models import attention
from alignx_fast.models.check import check_packed_forward
from alignx_fast.models.checkpointing import checkpoint_layers
from alignx_fast.models.fused import fuse_layers

Model = PreTrainedModel | PeftModel
"""What `load_model` gives: the model itself, or with adapters around it."""


def device() -> torch.device:
    """The first CUDA GPU where there is one, else the CPU."""
    return torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")


def bf16_works() -> bool:
    """Whether the GPU computes in bfloat16 by itself."""
    return torch.cuda.is_available() and torch.cuda.get_device_capability() >= (8, 0)


def compute_dtype() -> torch.dtype:
    """Number format of matrix products: bf16 on GPUs that have it, fp16 on older ones, fp32 on the CPU."""
    if not torch.cuda.is_available():
        return torch.float32
    return torch.bfloat16 if bf16_works() else torch.float16


def weight_dtype(settings: ModelSettings) -> torch.dtype:
    """Number format of the weights: as asked, else fp32 for full fine-tuning, whose updates would vanish in bf16."""
    if settings.dtype != "auto":
        return getattr(torch, settings.dtype)
    return torch.float32 if settings.tuning == "full" else compute_dtype()


def load_tokenizer(path: str, settings: ModelSettings) -> PreTrainedTokenizerFast:
    """The model's fast tokenizer, with a pad token.

    Raises:
        UserError: there is none, or it is a slow one, which has no character offsets.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=settings.trust_remote_code)
    except Exception as error:  # transformers raises many kinds for one mistake
        raise UserError(f"Cannot load a tokenizer from {path!r}: {_first_line(error)}") from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"The tokenizer of {path!r} has no character offsets; a fast tokenizer (tokenizer.json) is needed.")
    if tokenizer.eos_token_id is None:
        # BERT ends a text with [SEP]
        if tokenizer.sep_token is None:
            raise UserError(
                f"The tokenizer of {path!r} has no end-of-sequence token; set `eos_token` in its tokenizer_config.json."
            )
        tokenizer.eos_token = tokenizer.sep_token
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_config(path: str, settings: ModelSettings) -> PreTrainedConfig:
    """The model's configuration, checked against the settings before any weight is read.

    Raises:
        UserError: no such model, the align layer lies outside of it, or 4-bit weights without bitsandbytes.
    """
    if settings.tuning == "qlora":
        need_bitsandbytes("model.tuning is qlora", "--model.tuning lora")
    folder = Path(path).expanduser()
    local = folder.exists() or path.startswith((".", "/", "~"))
    if local and not (folder / "config.json").is_file():
        raise UserError(
            f"{path} is not a model folder (it holds no config.json); give a Hugging Face name or folder in `model.path`."
        )
    if local and not list(folder.glob("*.safetensors")):
        raise UserError(
            f"The model folder {path} holds no *.safetensors weights; convert or download them (other formats are not loaded)."
        )
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=settings.trust_remote_code)
    except Exception as error:
        raise UserError(f"Cannot load model {path!r}: {_first_line(error)}") from None
    if hasattr(config, "is_decoder") and config.model_type in {"bert", "roberta", "xlm-roberta", "camembert", "electra"}:
        config.is_decoder = True  # encoder families attend in both directions unless told
    align_layer(settings, config)
    return config


def need_bitsandbytes(wish: str, instead: str) -> None:
    """Refuse what cannot run without bitsandbytes, before anything else is done.

    Raises:
        UserError: it is not installed.
    """
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(f"{wish}, which needs bitsandbytes: install it with `pip install bitsandbytes`, or use `{instead}`.")


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


def load_model(path: str, settings: ModelSettings, *, adapter: Path | None = None) -> Model:
    """Load the base model, and adapters for lora and qlora (new ones, or those saved in `adapter`).

    The embeddings, head and norms of a 4-bit model keep their own format: casting them to fp32 costs 2 GiB on an 8B model.
    """
    config = load_config(path, settings)
    kwargs: dict[str, Any] = {}
    if settings.tuning == "qlora":
        kwargs["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute_dtype()
        )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path,
            config=config,
            dtype=weight_dtype(settings),
            device_map={"": device()},
            use_safetensors=True,
            trust_remote_code=settings.trust_remote_code,
            **kwargs,
        )
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"Cannot load model {path!r}: {_first_line(error)}") from None
    for module in model.modules():
        # On CPUs with AVX512-BF16 bitsandbytes repacks 4-bit weights at the first evaluation, for a product without a gradient:
        # training on after it would go wrong in silence.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    attention.select(settings.attention, compute_dtype() if device().type == "cuda" else weight_dtype(settings))
    attention.use_packed_attention(model)
    fuse_layers(model)
    check_packed_forward(model)
    checkpoint_layers(model, settings)
    if settings.tuning == "full":
        return model
    if adapter is not None:
        return PeftModel.from_pretrained(model, adapter, is_trainable=True)
    return add_adapters(model, settings.lora)


def add_adapters(model: PreTrainedModel, lora: LoraSettings, *, empty: bool = False) -> PeftModel:
    """New adapters around the model; `empty` ones hold no values.

    Raises:
        UserError: a target module that the model does not have.
    """
    if lora.target_modules != "all-linear":
        names = [f".{name}" for name, _ in model.named_modules()]
        if missing := [target for target in lora.target_modules if not any(name.endswith(f".{target}") for name in names)]:
            raise UserError(
                f"model.lora.target_modules names {missing[0]!r}, and {type(model).__name__} has no module of that name; "
                "`all-linear` takes every linear layer."
            )
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(model, config, low_cpu_mem_usage=empty)
    except ValueError as error:
        raise UserError(f"model.lora.target_modules is {lora.target_modules}: {_first_line(error)}") from None


def open_model(folder: str, settings: ModelSettings) -> tuple[Model, PreTrainedTokenizerFast]:
    """A trained model for evaluation, translation or export: a plain folder, an adapter folder, or a hub name."""
    adapter_config = Path(folder) / "adapter_config.json"
    if adapter_config.is_file():
        base = json.loads(adapter_config.read_text())["base_model_name_or_path"]
        tuning = settings.tuning if settings.tuning != "full" else "lora"
        model = load_model(base, settings.model_copy(update={"tuning": tuning}), adapter=Path(folder))
    else:
        model = load_model(folder, settings.model_copy(update={"tuning": "full", "dtype": _inference_dtype(settings)}))
    return model.eval(), load_tokenizer(folder, settings)


def _inference_dtype(settings: ModelSettings) -> str:
    return settings.dtype if settings.dtype != "auto" else str(compute_dtype()).removeprefix("torch.")


def _first_line(error: Exception) -> str:
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return line if line.endswith((".", "!", "?")) else line + "."
