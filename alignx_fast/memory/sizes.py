"""What a model is made of, counted on a model without weights (torch's meta device)."""

import copy
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from alignx_fast.config import LoraSettings
from alignx_fast.models.adapters import add_adapters
from alignx_fast.models.capture import body, decoder_layers
from alignx_fast.models.forward import head_module
from alignx_fast.models.fused import fuses_head, fuses_layers


@dataclass(frozen=True)
class Sizes:
    """Numbers of values, none of them bytes; widths are per token."""

    layers: int
    width: int
    heads: int
    attention: int
    """Width of the queries, and of the attention's output."""
    keys_values: int
    """Width of keys and values together."""
    inner: int
    """Width inside the MLP."""
    vocabulary: int
    linear: tuple[int, ...]
    """Weights of every linear layer of the body: what qlora quantises."""
    inputs: int
    """Summed input widths of the linear layers of one decoder layer."""
    norms: int
    """Summed widths of what the norms of one decoder layer read."""
    embeddings_and_head: int
    """Counted once where they are tied."""
    embeddings: tuple[int, ...]
    """Values of every embedding table."""
    parameters: tuple[int, ...]
    """Values of every parameter tensor."""
    gated: bool
    """The MLP multiplies two projections."""
    packed_attention: bool
    """False: attention stores all T x T scores (XGLM)."""
    softcap: bool
    """Attention scores are soft-capped, and stored row by row."""
    dropout: bool
    fused_layers: bool
    fused_head: bool

    @property
    def quantised(self) -> int:
        """Weights of the body's linear layers."""
        return sum(self.linear)

    @property
    def total(self) -> int:
        """All parameters."""
        return sum(self.parameters)


def count(config: PreTrainedConfig) -> Sizes:
    """Count a model of this configuration; no weight is read or made."""
    return _count(_Key(config))


def count_adapters(config: PreTrainedConfig, lora: LoraSettings) -> tuple[int, ...]:
    """Values of every adapter tensor, as peft would make them."""
    return _count_adapters(_Key(config), lora.model_dump_json())


class _Key:
    """A configuration by its content, for the caches: a plan tries many settings on one model."""

    def __init__(self, config: PreTrainedConfig) -> None:
        self.config, self.text = config, config.to_json_string(use_diff=False)

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other.text == self.text


def _meta_model(config: PreTrainedConfig) -> PreTrainedModel:
    config = copy.deepcopy(config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)  # type: ignore[no-untyped-call]
    return model


@lru_cache(maxsize=16)
def _count(key: _Key) -> Sizes:
    model = _meta_model(key.config)
    text = model.config.get_text_config()
    head, layer = head_module(model), decoder_layers(model)[0]
    outside = {id(p) for module in (head, *_embeddings(model)) for p in module.parameters()}
    linears = [module for module in layer.modules() if isinstance(module, nn.Linear)]
    heads = text.num_attention_heads
    head_dim = getattr(text, "head_dim", None) or text.hidden_size // heads
    attention, half = heads * head_dim, (getattr(text, "num_key_value_heads", None) or heads) * head_dim
    per_head = {"q_norm": attention, "k_norm": half}
    return Sizes(
        layers=text.num_hidden_layers,
        width=text.hidden_size,
        heads=heads,
        attention=attention,
        keys_values=2 * half,
        inner=max(max(module.in_features, module.out_features) for module in linears),
        vocabulary=text.vocab_size,
        linear=tuple(m.weight.numel() for m in body(model).modules() if isinstance(m, nn.Linear)),
        inputs=sum(module.in_features for module in linears),
        norms=sum(per_head.get(name.split(".")[-1], m.weight.numel()) for name, m in layer.named_modules() if _is_norm(m)),
        embeddings_and_head=sum(p.numel() for p in model.parameters() if id(p) in outside),
        embeddings=tuple(p.numel() for module in _embeddings(model) for p in module.parameters()),
        parameters=tuple(p.numel() for p in model.parameters()),
        gated=any(name.endswith("gate_proj") for name, _ in layer.named_modules()),
        packed_attention=type(model)._can_set_attn_implementation(),
        softcap=bool(getattr(text, "attn_logit_softcapping", None)),
        dropout=any(isinstance(value, float) and value > 0 for name, value in vars(text).items() if "dropout" in name),
        fused_layers=fuses_layers(key.config),
        fused_head=fuses_head(head, key.config),
    )


@lru_cache(maxsize=64)
def _count_adapters(key: _Key, lora: str) -> tuple[int, ...]:
    model = add_adapters(_meta_model(key.config), LoraSettings.model_validate_json(lora), empty=True)
    return tuple(p.numel() for p in model.parameters() if p.requires_grad)


def _embeddings(model: PreTrainedModel) -> list[nn.Module]:
    return [module for module in body(model).modules() if isinstance(module, nn.Embedding)]


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Norm") and getattr(module, "weight", None) is not None
