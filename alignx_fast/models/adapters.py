"""Adapters (LoRA) around a model."""

import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import PreTrainedModel

from alignx_fast.config import LoraSettings, ModelSettings, load_settings
from alignx_fast.errors import UserError, first_line
from alignx_fast.files import read_object, write_json
from alignx_fast.hardware import DTYPES, dtype_name, weight_dtype
from alignx_fast.models.loaded import listed, no_weights
from alignx_fast.process import without_hub_kernels

with without_hub_kernels():  # peft imports bitsandbytes
    from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
    from peft.tuners.tuners_utils import BaseTunerLayer

Model = PreTrainedModel | PeftModel
"""What is trained: the model itself, or with adapters around it."""

ADAPTED = ("lora", "qlora")
"""Tunings with adapters: on weights as they are, and on weights in 4 bits."""

WEIGHTS, TUNING = "adapter_model.safetensors", "tuning.json"
"""Files of an adapter folder: the adapters, and what they were trained on."""


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
        with without_peft_warnings():
            return get_peft_model(model, config, low_cpu_mem_usage=empty)
    except ValueError as error:
        raise UserError(f"model.lora.target_modules is {lora.target_modules}: {first_line(error)}") from None


def open_adapters(model: PreTrainedModel, folder: Path, *, trainable: bool = True) -> PeftModel:
    """The adapters saved in `folder` around the model.

    Raises:
        UserError: they are not safetensors data, or not adapters of this model.
    """
    saved = adapter_tensors(folder)
    try:
        with without_peft_warnings(), warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")  # they would be empty or random adapters
            adapted = PeftModel.from_pretrained(model, folder, is_trainable=trainable)
    except UserWarning:
        raise UserError(
            f"The adapters in {folder} lack tensors, or hold them under other names (such as {saved[0]}), so that some layers would have "
            "none: download or save them again."
        ) from None
    except RuntimeError as error:
        if "size mismatch" not in str(error):
            raise
        raise UserError(
            f"The adapters in {folder} have other sizes than {model.name_or_path}: they belong to another model."
        ) from None
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(f"The adapters in {folder} do not fit {model.name_or_path}: {first_line(error)}") from None
    own = get_peft_model_state_dict(adapted, save_embedding_layers=False).keys()
    # Where peft has translated names of an older layout, those of the file cannot be compared.
    if own <= set(saved) and (foreign := [name for name in saved if "lora_" in name and name not in own]):
        raise UserError(
            f"The adapters in {folder} hold {listed(foreign)}, for which {model.name_or_path} has no place: they belong to another model."
        )
    return adapted


def adapter_tensors(folder: Path) -> list[str]:
    """Names of the tensors of saved adapters, of which no value is read.

    Raises:
        UserError: there is no safetensors file, it is damaged, or it holds nothing.
    """
    file = folder / WEIGHTS
    if not file.is_file():
        raise UserError(
            f"The adapter folder {folder} holds no {WEIGHTS}: convert or download it (other formats, such as adapter_model.bin, are not loaded)."
        )
    try:
        with safe_open(file, "pt") as tensors:
            names = sorted(tensors.keys())
    except SafetensorError as error:
        raise no_weights(str(folder), error) from None
    if not names:
        raise UserError(f"{file} holds no tensors: download or save the adapters again.")
    return names


def save_tuning(folder: Path, settings: ModelSettings) -> None:
    """Write down beside saved adapters what they were trained on."""
    write_json(folder / TUNING, {"tuning": settings.tuning, "dtype": dtype_name(weight_dtype(settings))})


def saved_tuning(folder: Path) -> dict[str, str]:
    """`tuning` and `dtype` of saved adapters, as they stand beside them, else in the settings of the run around them; empty where nothing says it."""
    if not (folder / "adapter_config.json").is_file():
        return {}
    said = read_object(folder / TUNING) or {}
    if said.get("tuning") not in ADAPTED or said.get("dtype") not in DTYPES:
        files = [file for run in folder.resolve().parents[:2] if (file := run / "settings.yaml").is_file()]
        if not files or (model := load_settings(files[0]).model).tuning not in ADAPTED:
            return {}
        said = {"tuning": model.tuning, "dtype": dtype_name(weight_dtype(model))}
    return {"tuning": said["tuning"], "dtype": said["dtype"]}


def untie_adapted(model: PeftModel) -> None:
    """Give tied layers weights of their own where one has adapters: merged into shared weights, they would change the other layer too."""
    uses = Counter(id(weight) for module in model.modules() for weight in module.parameters(recurse=False))
    bases = [layer.get_base_layer() for layer in model.modules() if isinstance(layer, BaseTunerLayer)]
    if all(uses[id(weight)] == 1 for base in bases for weight in base.parameters(recurse=False)):
        return
    seen = set()
    for module in model.modules():  # all of them: transformers ties either all weights or none when it reads the model again
        for name, weight in list(module.named_parameters(recurse=False)):
            if id(weight) in seen:
                setattr(module, name, nn.Parameter(weight.detach().clone(), requires_grad=weight.requires_grad))
            seen.add(id(weight))


@contextmanager
def without_peft_warnings() -> Iterator[None]:
    """Without what peft says that a user can do nothing about: an old name it asks transformers by, and tied layers, which export unties."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*", category=FutureWarning)
        warnings.filterwarnings("ignore", message="Model (has|with) `tie_word_embeddings=True`")
        warnings.filterwarnings("ignore", message="Input and output embeddings are no longer tied")
        warnings.filterwarnings("ignore", message="Setting `save_embedding_layers` to `True`")
        yield
