"""Models of real shapes with random weights, built on the device layer by layer, so that an NF4 8B never exists in bf16."""

import copy

import bitsandbytes as bnb
import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from alignx_fast.config import ModelSettings
from alignx_fast.hardware import device, product_dtype, weight_dtype
from alignx_fast.models.adapters import add_adapters
from alignx_fast.models.capture import decoder_layers
from alignx_fast.models.setup import set_up


def random_model(config: PreTrainedConfig, settings: ModelSettings, *, attention_name: str) -> PreTrainedModel:
    """A base model as `from_pretrained` would return it: weights in the settings' format, linear layers of the body in NF4 for qlora.

    One layer is built by transformers together with everything around the layers; the others are copies of its class.
    """
    small = copy.deepcopy(config)
    small.num_hidden_layers = 1
    dtype = weight_dtype(settings)
    torch.manual_seed(0)
    with _building(dtype):
        model = AutoModelForCausalLM.from_config(small, attn_implementation=attention_name, dtype=dtype)
    layers = decoder_layers(model)
    model.config.num_hidden_layers = config.num_hidden_layers
    for index in range(config.num_hidden_layers):
        if index:
            with _building(dtype):
                layers.append(type(layers[0])(model.config, index))
            layers[index].apply(model._init_weights)
        if settings.tuning == "qlora":
            quantise(layers[index], product_dtype(settings))
    if settings.tuning == "qlora":
        model.is_loaded_in_4bit = True  # peft chooses its kind of adapter by it
    return model


def quantise(module: nn.Module, products: torch.dtype) -> None:
    """Replace every linear layer inside by an NF4 one with double quantisation, quantising its weights."""
    for name, child in list(module.named_children()):
        if not isinstance(child, nn.Linear):
            quantise(child, products)
            continue
        new = bnb.nn.Linear4bit(
            child.in_features,
            child.out_features,
            bias=child.bias is not None,
            compute_dtype=products,
            compress_statistics=True,
            quant_type="nf4",
            device="meta",
        )
        weight = bnb.nn.Params4bit(child.weight.data, requires_grad=False, compress_statistics=True, quant_type="nf4", module=new)
        new.weight, new.bias = weight.to(child.weight.device), child.bias
        setattr(module, name, new)


def our_model(config: PreTrainedConfig, settings: ModelSettings) -> nn.Module:
    """Prepared for training as `alignx_fast.models.weights.load_model` prepares what it has loaded."""
    model = random_model(config, settings, attention_name="sdpa")
    set_up(model, settings)
    return with_adapters(model, settings)


def with_adapters(model: PreTrainedModel, settings: ModelSettings) -> nn.Module:
    return model if settings.tuning == "full" else add_adapters(model, settings.lora)


class _building:  # noqa: N801  (used as a context)
    """Parameters made inside lie on the training device, in `dtype`."""

    def __init__(self, dtype: torch.dtype) -> None:
        self.dtype, self.before = dtype, torch.get_default_dtype()

    def __enter__(self) -> None:
        torch.set_default_dtype(self.dtype)
        self.device = device()
        self.device.__enter__()

    def __exit__(self, *error: object) -> None:
        self.device.__exit__(*error)
        torch.set_default_dtype(self.before)
