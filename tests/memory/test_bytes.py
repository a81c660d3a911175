"""The plan's formulas against real tensors: weights, NF4 data and scales, adapters, optimizer states, saved activations."""

import dataclasses

import bitsandbytes as bnb
import pytest
import torch
from torch import nn
from transformers import GemmaConfig, LlamaConfig, PreTrainedConfig, Qwen3Config, XGLMConfig

from alignx_fast.config import AlignSettings, LoraSettings, ModelSettings
from alignx_fast.data.packing import collate
from alignx_fast.data.spans import Example
from alignx_fast.losses.base import ModelShape
from alignx_fast.losses.cost import COMPUTE, optimizer_bytes
from alignx_fast.losses.matching import Matching
from alignx_fast.memory import formulas
from alignx_fast.memory.sizes import count, count_adapters
from alignx_fast.models.forward import packed_forward
from alignx_fast.models.random import random_model

SHAPE = {
    "vocab_size": 1000,
    "hidden_size": 256,
    "intermediate_size": 640,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
}
CPU = torch.device("cpu")


def config(family: str, layers: int = 2) -> PreTrainedConfig:
    if family == "xglm":
        return XGLMConfig(vocab_size=1000, d_model=256, ffn_dim=640, num_layers=layers, attention_heads=4)
    kind = {"llama": LlamaConfig, "qwen3": Qwen3Config, "gemma": GemmaConfig}[family]
    return kind(**SHAPE, num_hidden_layers=layers)


def planned(family: str, settings: ModelSettings, tokens: int = 512) -> dict[str, int]:
    adapters = () if settings.tuning == "full" else count_adapters(config(family), settings.lora)
    found = formulas.parts(count(config(family)), adapters, settings, AlignSettings(), tokens=tokens, max_length=512)
    return {part.name: part.bytes for part in found}


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma", "xglm"])
@pytest.mark.parametrize(("tuning", "dtype"), [("full", torch.float32), ("lora", torch.bfloat16)], ids=["full", "lora"])
def test_weights_and_adapters(family: str, tuning: str, dtype: torch.dtype) -> None:
    settings = ModelSettings(tuning=tuning)
    model = random_model(config(family), settings, CPU, dtype)
    parts = planned(family, settings)
    name = "fp32" if tuning == "full" else "bf16"
    frozen = sum(p.nbytes for p in model.parameters() if tuning == "full" or not p.requires_grad)
    assert parts[f"weights ({name})"] + parts[f"embeddings and head ({name})"] == frozen
    trained = sum(p.nbytes for p in model.parameters() if p.requires_grad)
    assert parts["gradients"] == trained
    assert parts.get("adapters (fp32)", trained) == trained


@pytest.mark.parametrize(
    "lora", [LoraSettings(rank=8, dora=True), LoraSettings(target_modules=["q_proj", "v_proj"])], ids=["dora", "two"]
)
def test_adapter_options(lora: LoraSettings) -> None:
    settings = ModelSettings(tuning="lora", lora=lora)
    model = random_model(config("llama"), settings, CPU, torch.float32)
    assert planned("llama", settings)["adapters (fp32)"] == sum(p.nbytes for p in model.parameters() if p.requires_grad)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma", "xglm"])
def test_quantised_weights_and_scales(family: str) -> None:
    settings = ModelSettings(tuning="qlora")
    model = random_model(config(family), settings, CPU, torch.bfloat16)
    parts = planned(family, settings)
    matrices = [m.weight for m in model.modules() if isinstance(m, bnb.nn.Linear4bit)]
    assert len(matrices) == len(count(config(family)).linear)
    quantised = {id(weight) for weight in matrices}
    small = sum(p.nbytes for p in model.parameters() if not p.requires_grad and id(p) not in quantised)
    ends = parts["embeddings and head (bf16)"]
    assert parts["weights (NF4)"] == sum(w.data.nbytes for w in matrices) + small - ends

    def scales(weight: bnb.nn.Params4bit) -> int:
        state = weight.quant_state
        return sum(t.nbytes for t in (state.absmax, state.code, state.offset, state.state2.absmax, state.state2.code))

    assert parts["quantisation scales"] == sum(scales(weight) for weight in matrices)


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")  # what it falls back to has the same size
@pytest.mark.parametrize("name", ["adamw", "adamw_8bit", "paged_adamw_8bit"])
def test_optimizer_state(name: str) -> None:
    # Below and above the 4,096 values from which moments have 8 bits; whole and broken blocks of 256.
    tensors = [nn.Parameter(torch.randn(shape)) for shape in ((16, 8), (64, 64), (100, 301), (4095,))]
    kinds = {"adamw": torch.optim.AdamW, "adamw_8bit": bnb.optim.AdamW8bit, "paged_adamw_8bit": bnb.optim.PagedAdamW8bit}
    optimizer = kinds[name](tensors, lr=1e-3)
    for tensor in tensors:
        tensor.grad = torch.randn_like(tensor)
    optimizer.step()
    real = 0
    for state in optimizer.state.values():
        # The two 8-bit code tables are shared by all tensors.
        real += sum(v.nbytes for key, v in state.items() if isinstance(v, torch.Tensor) and key != "step" and "qmap" not in key)
    assert optimizer_bytes(tuple(t.numel() for t in tensors), name, 4) == real


def test_matching_classifier() -> None:
    matching = Matching(AlignSettings().matching, ModelShape(width=256, layers=2, align_layer=1))
    trained = [p for p in matching.parameters() if p.requires_grad]
    parts = planned("llama", ModelSettings(tuning="lora"))
    # Value, gradient and two moments in fp32.
    assert parts["matching classifier"] == 4 * sum(p.nbytes for p in trained)


CASES = [("full", "float32"), ("full", "bfloat16"), ("lora", "bfloat16"), ("qlora", "bfloat16")]


@pytest.mark.parametrize(("tuning", "dtype"), CASES, ids=["full_fp32", "full_bf16", "lora", "qlora"])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma"])
def test_activations_kept_for_backward(family: str, tuning: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # peft asks without naming a device, which means CUDA: on a GPU its 4-bit adapters find autocast on and cast nothing themselves.
    enabled = torch.is_autocast_enabled
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device="cpu": enabled(device))
    settings = ModelSettings(tuning=tuning, dtype=dtype, lora=LoraSettings(rank=2))
    real = saved_bytes(family, settings, 3) - saved_bytes(family, settings, 2)
    sizes = dataclasses.replace(count(config(family)), fused_layers=False)  # fused kernels run on CUDA only
    kind = formulas.numbers(settings)
    found = TOKENS * formulas._saved_per_token(sizes, kind, settings)
    if kind.autocast:
        found += COMPUTE * sizes.quantised // sizes.layers
    assert found == pytest.approx(real, rel=0.13)


TOKENS = 512


def saved_bytes(family: str, settings: ModelSettings, layers: int) -> int:
    """Bytes of the distinct storages that autograd keeps in a forward pass under bf16 autocast, weights left out."""
    model = random_model(config(family, layers), settings, CPU, getattr(torch, settings.dtype)).train()
    row = Example(
        input_ids=torch.randint(3, 1000, (TOKENS,)).tolist(),
        prompt_length=1,
        source=[0, 0],
        target=[0, 0],
        src_lang=-1,
        tgt_lang=-1,
        meaning=0,
    )
    batch = collate([row], train_on_prompt=True, rows=[0])
    own = {tensor.untyped_storage().data_ptr() for tensor in (*model.parameters(), *model.buffers())}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", dtype=torch.bfloat16):
        output = packed_forward(model, batch)
    assert output.requires_grad
    return sum(tensor.untyped_storage().nbytes() for address, tensor in kept.items() if address not in own)
