"""Models with random weights in the storage of a real run, made tensor by tensor: for measurements without a checkpoint."""

import copy

import torch
from accelerate import init_empty_weights
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from alignx_fast.config import ModelSettings
from alignx_fast.models.adapters import Model, add_adapters
from alignx_fast.models.capture import body
from alignx_fast.models.setup import set_up


def random_model(config: PreTrainedConfig, settings: ModelSettings, device: torch.device, dtype: torch.dtype) -> Model:
    """A model of this shape on `device`, weights in `dtype` or NF4, with adapters and checkpointing as `load_model` gives them.

    No more than one matrix is held unquantised, so what fits after loading a checkpoint fits here too.
    """
    with init_empty_weights(include_buffers=False):
        model = AutoModelForCausalLM.from_config(copy.deepcopy(config))  # type: ignore[no-untyped-call]
    if settings.tuning == "qlora":
        model.is_loaded_in_4bit = True  # peft chooses its kind of adapters by it
        for parent in list(body(model).modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear):
                    setattr(parent, name, _random_nf4(child, device, dtype))
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_meta:
                values = torch.empty(parameter.shape, dtype=dtype, device=device).normal_(std=0.02)
                setattr(module, name, nn.Parameter(values))
        for name, buffer in list(module.named_buffers(recurse=False)):
            setattr(module, name, buffer.to(device))
    model.tie_weights()
    set_up(model, settings)
    return model if settings.tuning == "full" else add_adapters(model, settings.lora)


def _random_nf4(layer: nn.Linear, device: torch.device, dtype: torch.dtype) -> nn.Module:
    from bitsandbytes.nn.modules import Linear4bit, Params4bit

    shape = (layer.out_features, layer.in_features)
    quantised = Linear4bit(  # type: ignore[no-untyped-call]
        *shape[::-1], bias=False, compute_dtype=dtype, compress_statistics=True, quant_type="nf4", device="meta"
    )
    values = torch.empty(shape, dtype=dtype, device=device).normal_(std=0.02)
    weight = Params4bit(values, requires_grad=False, compress_statistics=True, quant_type="nf4", module=quantised)
    quantised.weight = weight.to(device)  # type: ignore[misc]
    if layer.bias is not None:
        quantised.bias = nn.Parameter(torch.zeros(layer.out_features, dtype=dtype, device=device))
    return quantised
