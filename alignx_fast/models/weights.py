"""Loading a model's weights as full, lora or qlora. Only safetensors; no remote code unless asked for."""

import logging
from pathlib import Path

import torch
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerFast

from alignx_fast.config import ModelSettings
from alignx_fast.errors import UserError, first_line
from alignx_fast.files import read_object
from alignx_fast.hardware import device, dtype_name, product_dtype, weight_dtype
from alignx_fast.models.adapters import Model, adapter_tensors, add_adapters, open_adapters
from alignx_fast.models.capture import causal_model
from alignx_fast.models.check import check_packed_forward
from alignx_fast.models.config import check_unquantised, load_config
from alignx_fast.models.finite import check_finite, check_finite_files
from alignx_fast.models.loaded import check_loaded, no_weights
from alignx_fast.models.setup import set_up
from alignx_fast.models.tokenizer import fit_tokenizer, load_tokenizer

log = logging.getLogger(__name__)


def load_model(path: str, settings: ModelSettings, *, adapter: Path | None = None) -> Model:
    """Load the base model, and adapters for lora and qlora (new ones, or those saved in `adapter`).

    The embeddings, head and norms of a 4-bit model keep their own format: casting them to fp32 costs 2 GiB on an 8B model.

    Raises:
        UserError: the model cannot be loaded or is quantised already, its weights are not finite, or its family cannot be trained on packed
            sequences.
    """
    check_unquantised(path, load_config(path, settings))
    if adapter is not None:
        adapter_tensors(adapter)  # a damaged file is found before the base model is read
    model = _load_base(path, settings)
    if settings.tuning == "full":
        return model
    if adapter is None:
        return add_adapters(model, settings.lora)
    adapted = open_adapters(model, adapter)
    check_finite(str(adapter), ((name, tensor) for name, tensor in adapted.named_parameters() if tensor.requires_grad))
    return adapted


def check_base(path: str, settings: ModelSettings) -> None:
    """Check a base model before anything is done with it.

    Raises:
        UserError: it is quantised already, its files are damaged or do not belong together, or tensors are missing or not finite.
    """
    check_unquantised(path, load_config(path, settings))
    if Path(path).is_dir():
        _read_weights(path, settings.model_copy(update={"tuning": "full"}), torch.device("meta"))
    check_finite_files(path)


def open_model(folder: str, settings: ModelSettings) -> tuple[Model, PreTrainedTokenizerFast]:
    """A trained model for evaluation, translation or export: a plain folder, an adapter folder, or a hub name."""
    model: Model
    adapter_config = Path(folder) / "adapter_config.json"
    if adapter_config.is_file():
        base = _base_now((read_object(adapter_config) or {}).get("base_model_name_or_path"), Path(folder))
        tuning = settings.tuning
        if tuning == "full":
            log.warning(
                "Nothing says what the adapters in %s were trained on: taken for LoRA on weights that are not quantised.", folder
            )
            tuning = "lora"
        model = load_model(base, settings.model_copy(update={"tuning": tuning}), adapter=Path(folder))
    else:
        dtype = dtype_name(product_dtype(settings)) if settings.dtype == "auto" else settings.dtype
        model = _load_base(folder, settings.model_copy(update={"tuning": "full", "dtype": dtype}))
    tokenizer = load_tokenizer(folder, settings)
    fit_tokenizer(tokenizer, causal_model(model).config, folder)
    return model.eval(), tokenizer


def _base_now(base: object, adapter: Path) -> str:
    """The base of an adapter. One that its run has built is looked for in the run folder, which may have been moved since."""
    if not (base and isinstance(base, str)):
        raise UserError(f"{adapter / 'adapter_config.json'} names no base model: write it there as `base_model_name_or_path`.")
    for run in adapter.resolve().parents[:2]:
        if Path(base).name == "base" and (run / "settings.yaml").is_file() and (run / "base" / "config.json").is_file():
            return str(run / "base")
    return base


def _load_base(path: str, settings: ModelSettings) -> PreTrainedModel:
    model = _read_weights(path, settings, device())
    check_finite(path, model.named_parameters())
    set_up(model, settings)
    check_packed_forward(model)
    return model


def _read_weights(path: str, settings: ModelSettings, place: torch.device) -> PreTrainedModel:
    config = load_config(path, settings)
    quantisation = None
    if settings.tuning == "qlora":
        quantisation = BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=product_dtype(settings),
        )
    try:
        model: PreTrainedModel
        report: dict[str, set[str]]
        model, report = AutoModelForCausalLM.from_pretrained(  # type: ignore[misc]  # a pair, with output_loading_info
            path,
            output_loading_info=True,
            config=config,
            dtype=weight_dtype(settings),
            device_map={"": place},
            use_safetensors=True,
            trust_remote_code=settings.trust_remote_code,
            quantization_config=quantisation,
        )
    except SafetensorError as error:
        raise no_weights(path, error) from None
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"Cannot load model {path!r}: {first_line(error)}") from None
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        if "ignore_mismatched_sizes" not in str(error):
            raise
        raise UserError(
            f"The weights of {path} have other sizes than its config.json says. Use the config.json that belongs to them."
        ) from None
    check_loaded(path, model, report)
    for module in model.modules():
        # On CPUs with AVX512-BF16 bitsandbytes repacks 4-bit weights at the first evaluation, for a product without a gradient:
        # training on after it would go wrong in silence.
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]
    return model
