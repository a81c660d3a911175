"""Adapters (LoRA) around a model."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers import PreTrainedModel

from alignx_fast.config import LoraSettings
from alignx_fast.errors import UserError, first_line
from alignx_fast.process import without_hub_kernels

with without_hub_kernels():  # peft imports bitsandbytes
    from peft import LoraConfig, PeftModel, get_peft_model

Model = PreTrainedModel | PeftModel
"""What is trained: the model itself, or with adapters around it."""


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
        with _without_deprecation():
            return get_peft_model(model, config, low_cpu_mem_usage=empty)
    except ValueError as error:
        raise UserError(f"model.lora.target_modules is {lora.target_modules}: {first_line(error)}") from None


def open_adapters(model: PreTrainedModel, folder: Path, *, trainable: bool = True) -> PeftModel:
    """The adapters saved in `folder` around the model."""
    with _without_deprecation():
        return PeftModel.from_pretrained(model, folder, is_trainable=trainable)


@contextmanager
def _without_deprecation() -> Iterator[None]:
    """peft asks transformers by an old name, about which a user can do nothing."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        yield
