"""`alignx-fast export`: adapters merged into a plain Hugging Face folder."""

import gc
import shutil
import warnings
from pathlib import Path

import torch
from peft import PeftModel
from rich.console import Console
from transformers import PreTrainedModel

from alignx_fast.errors import UserError
from alignx_fast.files import publish
from alignx_fast.hardware import product_dtype
from alignx_fast.models.adapters import Model, open_adapters, untie_adapted
from alignx_fast.models.capture import causal_model
from alignx_fast.models.forward import generation_mode
from alignx_fast.models.positions import learned_positions
from alignx_fast.models.weights import open_model
from alignx_fast.verbs.trained import find_model, settings_of

MOST_DIFFERENCE, MOST_DIFFERENCE_16_BIT = 0.01, 0.05
"""How far the logits of an exported model may be from the trained model's, relative to their norm: what rounding can explain."""

TOKENS_COMPARED = 256


def export_model(path: str, folder: Path) -> None:
    """Write the merged model to `folder`, read it again, and print how far its logits are from those of the trained model.

    Raises:
        UserError: `folder` exists already, or what was written is another model than the trained one; it is removed again.
    """
    if folder.exists():
        raise UserError(f"{folder} already exists; give a new folder.")
    model_path, file = find_model(path)
    settings = settings_of(model_path, file).model
    model, tokenizer = open_model(model_path, settings)
    trained = _logits(model)
    merged = _merge(model, Path(model_path), product_dtype(settings))
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        merged.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        del model, merged  # both do not fit a GPU beside the one that is read now
        gc.collect()
        written, _ = open_model(str(partial), settings)
        difference = float((_logits(written) - trained).norm() / trained.norm())
        most = MOST_DIFFERENCE if causal_model(written).dtype == torch.float32 else MOST_DIFFERENCE_16_BIT
        if not difference <= most:  # also where it is NaN
            raise UserError(
                f"The merged model's logits differ from the trained model's by {difference:.2%}, more than rounding explains "
                f"({most:.0%}), so {folder} was not written: use the adapters in {model_path} as they are."
            )
        publish(partial, folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)  # the disk may be full
        raise
    Console(highlight=False, soft_wrap=True, markup=False, emoji=False).print(
        f"{folder}: a plain Hugging Face model; its logits differ from the trained model's by {difference:.2%}."
    )


def _merge(model: Model, adapters: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The model with its adapters in its weights.

    Adapters trained on 4-bit weights have learned to correct the *quantised* weights, so they are merged into these, dequantised:
    merged into the original weights, or quantised again, they lose most of what was learned.
    """
    if not isinstance(model, PeftModel):
        return model
    if getattr(causal_model(model), "is_loaded_in_4bit", False):
        model = open_adapters(model.unload().dequantize(dtype), adapters, trainable=False)
    untie_adapted(model)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Input and output embeddings are no longer tied")
        merged: PreTrainedModel = model.merge_and_unload()
    return merged


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
