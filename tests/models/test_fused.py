"""Fused kernels: who gets them, and that they compute what they replace."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support.tiny_models import FAMILIES, random_rows, tiny_model
from torch import nn

from alignx_fast.data.packing import pack
from alignx_fast.losses.next_token import next_token_loss
from alignx_fast.models import fused
from alignx_fast.models.forward import head_module, packed_forward

needs_liger = pytest.mark.skipif(not fused.installed(), reason="liger-kernel is not installed")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")


@needs_liger
def test_families_with_fused_layers() -> None:
    chosen = {family for family, config in FAMILIES.items() if fused.fuses_layers(config)}
    assert chosen == {"llama", "mistral", "qwen2", "qwen3", "gemma", "gemma2"}


def test_another_activation_is_not_fused() -> None:
    assert not fused.fuses_layers(type(FAMILIES["llama"])(hidden_act="relu"))


def test_a_cpu_model_is_left_alone() -> None:
    model = tiny_model()
    assert not fused.fuse_layers(model)
    assert "forward" not in vars(model.model.norm)


@needs_liger
def test_only_plain_unscaled_heads_are_fused() -> None:
    model = tiny_model()
    assert fused.fuses_head(head_module(model), model.config)
    assert not fused.fuses_head(head_module(tiny_model("bert")), FAMILIES["bert"])
    model.config.logit_scale = 0.5
    assert not fused.fuses_head(head_module(model), model.config)


def test_without_liger_nothing_is_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fused, "installed", lambda: False)
    assert not fused.fuses_layers(FAMILIES["llama"])
    assert not fused.fuses_head(nn.Linear(2, 2), FAMILIES["llama"])


@pytest.mark.parametrize(
    ("rows", "width", "vocabulary"), [(4096, 4096, 128256), (4096, 2048, 256000), (5, 64, 97), (16384, 1024, 32000)]
)
def test_chunks_stay_near_the_budget(rows: int, width: int, vocabulary: int) -> None:
    chunk = fused.rows_per_chunk(rows, width, vocabulary)
    assert 1 <= chunk <= rows
    assert chunk * vocabulary <= 4 * fused.LOGITS_PER_CHUNK
    assert chunk == rows or chunk * vocabulary >= fused.LOGITS_PER_CHUNK // 4


@needs_liger
def test_fused_cross_entropy_in_the_interpreter() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    script = Path(__file__).with_name("interpreted_head.py")
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout == "equal\n", done.stderr


@pytest.mark.gpu
@needs_gpu
@needs_liger
@pytest.mark.parametrize("family", sorted(fused.FAMILIES))
def test_fused_model_gives_the_same_loss_and_gradients(family: str) -> None:
    results = []
    for use in (False, True):
        model = tiny_model(family).cuda()
        if use:
            assert fused.fuse_layers(model)
        (batch,) = pack(random_rows(6), 10_000, train_on_prompt=True)
        batch = batch.to("cuda")
        loss = next_token_loss(model, packed_forward(model, batch), batch)
        loss.backward()
        results.append((loss, {name: p.grad for name, p in model.named_parameters()}))
    (plain_loss, plain), (loss, gradients) = results
    torch.testing.assert_close(loss, plain_loss, rtol=1e-3, atol=1e-3)
    for name, gradient in plain.items():
        assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-2, atol=1e-3 * float(gradient.abs().max()), msg=name)
    # The family's module serves models on a CPU as before.
    (batch,) = pack(random_rows(2), 10_000, train_on_prompt=True)
    assert packed_forward(tiny_model(family), batch).isfinite().all()


@pytest.mark.gpu
@needs_gpu
@needs_liger
@pytest.mark.parametrize("softcap", [None, 20.0])
def test_fused_cross_entropy_against_the_plain_one(softcap: float | None) -> None:
    torch.manual_seed(0)
    head = nn.Linear(64, 1000).cuda()
    hidden = torch.randn(300, 64, device="cuda", requires_grad=True)
    labels = torch.randint(0, 1000, (300,), device="cuda")
    logits = head(hidden)
    plain = nn.functional.cross_entropy(softcap * torch.tanh(logits / softcap) if softcap else logits, labels, reduction="sum")
    ours = fused.fused_cross_entropy(head, hidden, labels, softcap)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-3)
    for computed, expected in zip(
        *(torch.autograd.grad(loss / 7, [hidden, *head.parameters()]) for loss in (ours, plain)), strict=True
    ):
        torch.testing.assert_close(computed, expected, rtol=1e-3, atol=1e-4)
