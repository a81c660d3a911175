"""`alignx-fast export`: adapters merged into a plain Hugging Face folder."""

import gc
import shutil
from pathlib import Path

import torch
from peft import PeftModel
from rich.console import Console
from torch import nn

from alignx_fast.config import load_settings
from alignx_fast.errors import UserError
from alignx_fast.hardware import product_dtype
from alignx_fast.models.adapters import open_adapters
from alignx_fast.models.capture import causal_model
from alignx_fast.models.forward import generation_mode
from alignx_fast.models.weights import open_model
from alignx_fast.verbs.trained import find_model


def export_model(path: str, folder: Path) -> None:
    """Write the merged model to `folder` and print how far its logits are from those of the trained model.

    Adapters trained on 4-bit weights have learned to correct the *quantised* weights, so they are merged into these, dequantised:
    merged into the original weights, or quantised again, they lose most of what was learned.

    Raises:
        UserError: `folder` exists already.
    """
    if folder.exists():
        raise UserError(f"{folder} already exists; give a new folder.")
    model_path, file = find_model(path)
    settings = load_settings(file).model
    model, tokenizer = open_model(model_path, settings)
    ids = tokenizer("1 2 3 4 5 6 7 8 9 10", return_tensors="pt")["input_ids"].to(causal_model(model).device)
    trained = _logits(model, ids)
    if isinstance(model, PeftModel) and settings.tuning == "qlora":
        base = model.unload()
        del model
        gc.collect()
        dense = base.dequantize(product_dtype(settings))
        model = open_adapters(dense, Path(model_path), trainable=False)
    merged = model.merge_and_unload() if isinstance(model, PeftModel) else model
    error = (_logits(merged, ids) - trained).norm() / trained.norm()
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        merged.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # the disk may be full
        raise
    partial.rename(folder)
    Console(highlight=False, soft_wrap=True, markup=False, emoji=False).print(
        f"{folder}: a plain Hugging Face model; its logits differ from the trained model's by {error:.2%}."
    )


@torch.no_grad()
def _logits(model: nn.Module, ids: torch.Tensor) -> torch.Tensor:
    with generation_mode(model):
        logits: torch.Tensor = model(input_ids=ids, use_cache=False).logits
    return logits.float()
