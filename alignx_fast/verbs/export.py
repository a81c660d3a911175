"""`alignx-fast export`: adapters merged into a plain Hugging Face folder."""

import gc
import shutil
from pathlib import Path

import torch
from peft import PeftModel
from rich.console import Console
from torch import nn
from transformers import PreTrainedModel

from alignx_fast.config import ModelSettings
from alignx_fast.errors import UserError
from alignx_fast.files import publish
from alignx_fast.hardware import DTYPES, dtype_name, product_dtype, weight_dtype
from alignx_fast.models.adapters import Model, open_adapters, untie_adapted, without_peft_warnings
from alignx_fast.models.capture import causal_model
from alignx_fast.models.config import check_unquantised, load_config
from alignx_fast.models.forward import generation_mode
from alignx_fast.models.positions import learned_positions
from alignx_fast.models.weights import open_model
from alignx_fast.verbs.trained import find_model, settings_of

MOST_DIFFERENCE = {torch.float32: 0.001, torch.bfloat16: 0.05, torch.float16: 0.05}
"""How far the logits of an exported model may be from the trained model's, relative to their norm, by the number format in which its weights
are written: what rounding can explain."""

TOKENS_COMPARED = 256


def export_model(path: str, folder: Path) -> None:
    """Write the merged model to `folder`, read it again, and print how far its logits are from those of the trained model.

    Raises:
        UserError: `folder` exists already, or what was written is another model than the trained one; it is removed again.
    """
    if folder.exists():
        raise UserError(f"{folder} already exists; give a new folder.")
    model_path, file = find_model(path)
    settings, dtype = _formats(model_path, settings_of(model_path, file, exact=True).model)
    model, tokenizer = open_model(model_path, settings)
    trained = _logits(model)
    merged = _merge(model, Path(model_path), dtype)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        merged.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        del model, merged  # both do not fit a GPU beside the one that is read now
        gc.collect()
        written = _written(partial, settings.model_copy(update={"dtype": dtype_name(dtype)}))
        difference = float((_logits(written) - trained).norm() / trained.norm())
        if not difference <= MOST_DIFFERENCE[dtype]:  # also where it is NaN
            raise UserError(
                f"The exported model's logits differ from the trained model's by {difference:.2%}, more than rounding explains "
                f"({MOST_DIFFERENCE[dtype]:.1%}), so {folder} was not written: use {model_path} as it is."
            )
        publish(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # the disk may be full
        raise
    Console(highlight=False, soft_wrap=True, markup=False, emoji=False).print(
        f"{folder}: a plain Hugging Face model; its logits differ from the trained model's by {difference:.2%}."
    )


def _formats(model_path: str, settings: ModelSettings) -> tuple[ModelSettings, torch.dtype]:
    """The settings under which a model is opened as it was trained, and the number format in which it is written."""
    if (Path(model_path) / "adapter_config.json").is_file():
        return settings, product_dtype(settings) if settings.tuning == "qlora" else weight_dtype(
            settings.model_copy(update={"tuning": "lora"})
        )
    config = load_config(model_path, settings)
    check_unquantised(model_path, config)
    written = product_dtype(settings) if settings.dtype == "auto" else DTYPES[settings.dtype]
    stored = config.dtype if config.dtype in MOST_DIFFERENCE else written
    opened = torch.float32 if written == torch.float32 else stored  # both are computed alike where nothing is rounded
    return settings.model_copy(update={"tuning": "full", "dtype": dtype_name(opened)}), written


def _written(folder: Path, settings: ModelSettings) -> Model:
    try:
        return open_model(str(folder), settings)[0]
    except UserError as error:
        raise UserError(f"What was exported cannot be read again, and is removed: {error}") from None


def _merge(model: Model, adapters: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The model with its adapters in its weights, all in `dtype`.

    Adapters trained on 4-bit weights have learned to correct the *quantised* weights, so they are merged into these, dequantised:
    merged into the original weights, or quantised again, they lose most of what was learned.
    """
    if isinstance(model, PeftModel):
        if getattr(causal_model(model), "is_loaded_in_4bit", False):
            model = open_adapters(model.unload().dequantize(dtype), adapters, trainable=False)
        untie_adapted(model)
        with without_peft_warnings():
            model = model.merge_and_unload()
    plain = causal_model(model)
    nn.Module.to(plain, dtype=dtype)
    return plain


@torch.no_grad()
def _logits(model: Model) -> torch.Tensor:
    """fp32 logits on tokens from all over the vocabulary, so that no part of the model goes unseen."""
    causal = causal_model(model)
    last = causal.config.get_text_config().vocab_size - 1
    ids = torch.linspace(0, last, min(TOKENS_COMPARED, learned_positions(model) or TOKENS_COMPARED), device=causal.device).long()[
        None
    ]
    with generation_mode(model):
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits.float()
