"""Activation checkpointing changes memory, never a gradient."""

import pytest
import torch
from support.tiny_models import FAMILIES, random_rows, tiny_model
from torch import nn

from alignx_fast.config import AlignSettings, LoraSettings, ModelSettings
from alignx_fast.data.packing import PackedBatch, pack
from alignx_fast.losses.base import Vectors
from alignx_fast.losses.build import build_losses, model_shape
from alignx_fast.losses.next_token import next_token_loss
from alignx_fast.models.adapters import add_adapters
from alignx_fast.models.checkpointing import checkpoint_layers
from alignx_fast.training.step import forward_pass


def build(family: str, tuning: str, checkpointing: bool | int) -> nn.Module:
    model = tiny_model(family)
    checkpoint_layers(model, ModelSettings(gradient_checkpointing=checkpointing))
    if tuning == "full":
        return model.train()
    torch.manual_seed(1)
    # Dropout on purpose: the recomputed layer must draw the same mask.
    peft_model = add_adapters(model, LoraSettings(rank=4, dropout=0.25))
    with torch.no_grad():
        for name, parameter in peft_model.named_parameters():
            if "lora_B" in name:
                parameter.normal_()  # B starts at zero, which would hide the gradient of A
    return peft_model.train()


def last_state_and_vectors(model: nn.Module, batch: PackedBatch) -> tuple[torch.Tensor, Vectors]:
    losses = build_losses(AlignSettings(), model_shape(model, 2), seed=0)
    forward = forward_pass(model, losses, batch)
    return forward.states[3], tuple(vectors for loss in losses for vectors in loss.read(forward))


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    (batch,) = pack(random_rows(6), 10_000, train_on_prompt=True)
    torch.manual_seed(2)
    hidden_TD, pooled = last_state_and_vectors(model, batch)
    loss = next_token_loss(model, hidden_TD, batch)
    for vectors in pooled:
        loss = loss + (vectors * torch.randn(vectors.shape, generator=torch.Generator().manual_seed(3))).sum()
    loss.backward()
    return {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("checkpointing", [True, 2], ids=["every_layer", "every_second"])
def test_gradients_are_those_without_checkpoints(tuning: str, checkpointing: bool | int) -> None:
    expected = gradients(build("llama", tuning, False))
    computed = gradients(build("llama", tuning, checkpointing))
    assert expected.keys() == computed.keys()
    assert all(gradient.abs().max() > 0 for gradient in expected.values())
    for name, gradient in expected.items():
        torch.testing.assert_close(computed[name], gradient, rtol=1e-6, atol=1e-6, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_has_checkpoints(family: str) -> None:
    expected, computed = (gradients(build(family, "full", checkpointing)) for checkpointing in (False, True))
    for name, gradient in expected.items():
        torch.testing.assert_close(computed[name], gradient, rtol=1e-6, atol=1e-6, msg=name)


@pytest.mark.parametrize(("checkpointing", "forwards"), [(False, [1, 1, 1]), (True, [2, 2, 2]), (2, [2, 1, 2])])
def test_chosen_layers_run_twice_and_their_hooks_once(checkpointing: bool | int, forwards: list[int]) -> None:
    model = build("llama", "full", checkpointing)
    ran, hooked = [0, 0, 0], [0, 0, 0]

    def count(i: int) -> None:
        layer = model.model.layers[i]
        layer.mlp.register_forward_pre_hook(lambda *_: ran.__setitem__(i, ran[i] + 1))
        layer.register_forward_hook(lambda *_: hooked.__setitem__(i, hooked[i] + 1))

    for i in range(3):
        count(i)
    gradients(model)
    assert ran == forwards
    assert hooked == [1, 1, 1]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_offloaded_checkpoints_give_the_same_gradients() -> None:
    results = []
    for settings in (
        ModelSettings(gradient_checkpointing=True),
        ModelSettings(gradient_checkpointing=True, offload_checkpoints=True),
    ):
        model = tiny_model().cuda().train()
        checkpoint_layers(model, settings)
        (batch,) = pack(random_rows(6), 10_000, train_on_prompt=True)
        batch = batch.to("cuda")
        next_token_loss(model, last_state_and_vectors(model, batch)[0], batch).backward()
        results.append([p.grad for p in model.parameters()])
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second)
