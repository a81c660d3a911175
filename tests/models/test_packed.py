"""Packed equals alone, for every family, and captured layers are what transformers calls hidden states."""

import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from support.tiny_models import FAMILIES, random_rows, tiny_model

from alignx_fast.data.packing import pack
from alignx_fast.errors import UserError
from alignx_fast.losses.next_token import next_token_loss
from alignx_fast.models import attention, packed
from alignx_fast.models.capture import captured, num_layers
from alignx_fast.models.check import check_packed_forward
from alignx_fast.models.forward import generation_mode, head_logits, packed_forward


@pytest.mark.parametrize("family", FAMILIES)
def test_packed_rows_do_not_see_each_other(family: str) -> None:
    model, rows = tiny_model(family).eval(), random_rows(5)
    (batch,) = pack(rows, 10_000, train_on_prompt=True)
    with torch.no_grad():
        logits = head_logits(model, packed_forward(model, batch))
        with generation_mode(model):
            alone = [model(input_ids=torch.tensor([row["input_ids"]]), use_cache=False).logits[0] for row in rows]
    torch.testing.assert_close(logits, torch.cat(alone), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_loss_is_the_models_own_loss(family: str) -> None:
    model, rows = tiny_model(family).eval(), random_rows(4)
    (batch,) = pack(rows, 10_000, train_on_prompt=True)
    with torch.no_grad():
        ours = next_token_loss(model, packed_forward(model, batch), batch)
        theirs = 0.0
        with generation_mode(model):
            for row in rows:
                ids = torch.tensor([row["input_ids"]])
                theirs += model(input_ids=ids, labels=ids, use_cache=False).loss * (ids.shape[1] - 1)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_captured_states_are_hidden_states(family: str) -> None:
    model, rows = tiny_model(family).eval(), random_rows(1)
    (batch,) = pack(rows, 10_000, train_on_prompt=True)
    layers = range(num_layers(model) + 1)
    with torch.no_grad(), captured(model, layers) as states:
        packed_forward(model, batch)
    with torch.no_grad(), generation_mode(model):
        expected = model(input_ids=batch.input_ids, use_cache=False, output_hidden_states=True).hidden_states
    assert len(expected) == len(states) == 4
    for layer in layers:
        torch.testing.assert_close(states[layer], expected[layer][0], rtol=1e-4, atol=1e-4)


def test_stop_ends_the_pass_at_the_layer() -> None:
    model, rows = tiny_model(), random_rows(2)
    (batch,) = pack(rows, 10_000, train_on_prompt=True)
    ran = []
    model.model.layers[2].register_forward_hook(lambda *_: ran.append(2))
    with captured(model, [2], stop=True) as states:
        packed_forward(model, batch)
        raise AssertionError("the pass must not come back")
    assert set(states) == {2}
    assert not ran


@pytest.mark.parametrize("scaled", [False, True], ids=["plain head", "scaled head"])
def test_chunked_loss_equals_whole(scaled: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A plain head takes its gradients in the forward pass; one with scaled logits computes them again in the backward pass."""
    model, rows = tiny_model(dtype=torch.float64), random_rows(6)
    if scaled:
        model.config.logit_scale = 0.5
    (batch,) = pack(rows, 10_000, train_on_prompt=False)
    hidden = packed_forward(model, batch).detach().requires_grad_()
    whole = next_token_loss(model, hidden, batch)
    (whole_gradient,) = torch.autograd.grad(whole, hidden)
    for module in ("losses.next_token", "models.chunked_head"):
        monkeypatch.setattr(f"alignx_fast.{module}.LOGITS_PER_CHUNK", 97 * 7)
    pieces = next_token_loss(model, hidden, batch)
    (gradient,) = torch.autograd.grad(pieces, hidden)
    assert gradient.abs().max() > 0
    torch.testing.assert_close(pieces, whole, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(gradient, whole_gradient, rtol=1e-6, atol=1e-7)


def test_a_model_that_mixes_packed_rows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    model.set_attn_implementation("sdpa")
    monkeypatch.setattr("alignx_fast.models.forward.block_mask", lambda *_: torch.zeros(1, 1, 12, 12))
    with pytest.raises(UserError, match="not supported"):
        check_packed_forward(model)


@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("window", [None, 3])
@pytest.mark.parametrize("kv_heads", [1, 2, 4])
def test_padded_attention_in_bf16(kv_heads: int, window: int | None, softcap: float | None) -> None:
    """Short bf16 rows on a CPU go through plain products: output and gradients are those of fp64 on the same values, up to bf16."""
    torch.manual_seed(0)
    q, k, v, cotangent = (torch.randn(20, heads, 16, dtype=torch.bfloat16) for heads in (4, kv_heads, kv_heads, 4))
    results = []
    for dtype in (torch.float64, torch.bfloat16):
        leaves = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        cu_seqlens = torch.tensor([0, 3, 4, 11, 20], dtype=torch.int32)
        output = packed.padded_attention(packed.Problem(*leaves, cu_seqlens, 9, 0.25, 0.0, window, softcap))
        results.append([output, *torch.autograd.grad(output, leaves, cotangent.to(dtype))])
    for expected, got in zip(*results, strict=True):
        assert (got.double() - expected).norm() < 0.01 * expected.norm()


@pytest.mark.parametrize("implementation", ["varlen", "flash_attn"])
@pytest.mark.parametrize(
    ("width", "dtype"), [(80, torch.bfloat16), (512, torch.bfloat16), (36, torch.bfloat16), (64, torch.float32)]
)
def test_what_flash_attention_cannot_take_is_padded(
    implementation: str, width: int, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packed, "varlen_attention", lambda problem: torch.full_like(problem.q_THd, torch.nan))
    package = SimpleNamespace(flash_attn_varlen_func=lambda q, *_, **__: torch.full_like(q, torch.nan))
    monkeypatch.setitem(sys.modules, "flash_attn", package)
    query = torch.randn(1, 4, 12, width, dtype=dtype)
    lengths = torch.tensor([0, 5, 12], dtype=torch.int32)
    attend = partial(packed.packed_attention, implementation)
    output, _ = attend(torch.nn.Identity(), query, query, query, None, cu_seq_lens_q=lengths, max_length_q=7)
    assert output.isnan().all() == (width == 80)


def test_flash_attn_4_is_not_taken_for_flash_attn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "flash_attn" / "cute").mkdir(parents=True)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "flash_attn", raising=False)
    assert "does not load" in packed.flash_attn_fault.__wrapped__()


def test_two_models_in_one_process_differ_in_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each keeps its own, also after it has generated; choosing for one changes nothing for another."""
    ran: list[str] = []
    for name in ("flash_attn_attention", "varlen_attention", "padded_attention"):

        def spy(problem: packed.Problem, name: str = name) -> torch.Tensor:
            ran.append(name)
            return torch.zeros_like(problem.q_THd)

        monkeypatch.setattr(packed, name, spy)
    models = {name: tiny_model(dtype=torch.bfloat16) for name in attention.REGISTERED}
    for name, model in models.items():
        attention.use_packed_attention(model, name)
    (batch,) = pack(random_rows(3), 10_000, train_on_prompt=True)
    for name, expected in (("varlen", "varlen"), ("sdpa", "padded"), ("flash_attn", "flash_attn")):
        with generation_mode(models[name]):
            assert not attention.is_packed(models[name])
        assert attention.in_use(models[name]) == name
        ran.clear()
        packed_forward(models[name], batch)
        assert set(ran) == {f"{expected}_attention"}
    with generation_mode(model := tiny_model("xglm")):
        pass
    assert attention.in_use(model) == "the model's own, masked"


def test_choosing_an_implementation_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "available", lambda: {"flash_attn": "", "varlen": "", "sdpa": ""})
    model = tiny_model()
    assert attention.choose("auto", torch.bfloat16) == "flash_attn"
    assert attention.choose("auto", torch.float32) == "sdpa"
    assert attention.choose("varlen", torch.float32) == "varlen"
    assert attention.in_use(model) == "sdpa"


def test_varlen_is_replaced_where_scores_are_capped() -> None:
    model = tiny_model("gemma2", attn_logit_softcapping=20.0)
    attention.use_packed_attention(model, "varlen")
    assert attention.in_use(model) == "sdpa"
