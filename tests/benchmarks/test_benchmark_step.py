"""Training-step contenders: the same rows, the same losses, real NF4."""

import dataclasses
import json

import bitsandbytes as bnb
import pytest
import torch

from alignx_fast.config import AlignSettings
from alignx_fast.data.packing import pack
from alignx_fast.losses.build import build_losses, model_shape
from alignx_fast.losses.contrastive import ContrastiveSettings
from alignx_fast.losses.matching import Matching
from alignx_fast.models import attention
from alignx_fast.models.capture import decoder_layers
from alignx_fast.training.step import AlignStep
from alignx_fast.training.trainer import AlignXTrainer
from benchmarks.fresh import FreshProcessError
from benchmarks.step import run as stepping
from benchmarks.step.cases import CPU_CASES, GPU_CASES, config_of
from benchmarks.step.expanded import expanded_losses
from benchmarks.step.models import random_model
from benchmarks.step.names import CACHED, EXPANDED, STOCK
from benchmarks.step.padding import padded
from benchmarks.step.rows import MAX_LENGTH, rows_from_file, synthetic_rows
from benchmarks.step.run import model_flops, model_peak_flops, run_step

CASE = CPU_CASES[0]
NAMED = {case.name: case for case in CPU_CASES + GPU_CASES}


def test_expanded_losses_equal_ours_in_values_and_gradients():
    config, rows, layer = config_of(CASE), synthetic_rows(7, 512, pairs=True), 2
    model = random_model(config, CASE.model_settings(), attention_name="sdpa")
    settings = AlignSettings(contrastive=ContrastiveSettings(weight=0.3))
    losses = build_losses(settings, model_shape(model, layer), seed=0)
    parameters = {name: p for module in (model, *losses) for name, p in module.named_parameters() if p.requires_grad}

    matching = next(loss for loss in losses if isinstance(loss, Matching))
    theirs = expanded_losses(model, matching, padded(rows, left=True), settings, layer)
    theirs["loss"].backward()
    gradients = {name: p.grad.clone() for name, p in parameters.items()}
    model.zero_grad()
    matching.zero_grad()

    attention.use_packed_attention(model, "sdpa")
    batches = pack(rows, 10_000, train_on_prompt=True)
    ours = AlignStep(model, losses, autocast=_plain)(batches, torch.Tensor.backward)
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value.detach(), rtol=1e-5, atol=1e-6)
    for name, parameter in parameters.items():
        expected = gradients[name]
        assert expected.abs().max() > 0, name
        assert (parameter.grad - expected).norm() <= 1e-4 * expected.norm(), name


def _plain():
    return torch.autocast("cpu", enabled=False)


def test_synthetic_rows_keep_their_spans_inside():
    rows = synthetic_rows(400, 512, pairs=True)
    lengths = [len(row["input_ids"]) for row in rows]
    assert max(lengths) <= MAX_LENGTH
    assert max(lengths) > 2.5 * sum(lengths) / len(lengths), "no long tail"
    for row in rows:
        (a, b), (c, d) = row["source"], row["target"]
        assert 0 < a < b < c == row["prompt_length"] < d <= len(row["input_ids"])
        assert row["src_lang"] != row["tgt_lang"]
    assert rows == synthetic_rows(400, 512, pairs=True), "not the same rows for every contender"


def test_rows_come_from_a_file(tmp_path):
    path = tmp_path / "pairs.jsonl"
    lines = [{"src_lang": "en", "tgt_lang": "de", "src": f"It is {n} o'clock.", "tgt": f"Es ist {n} Uhr."} for n in range(9)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    rows = rows_from_file(path, 8, 512)
    assert len(rows) == 8
    assert {row["src_lang"] for row in rows} == {1}
    with pytest.raises(ValueError, match="9 usable pairs; 12 are needed"):
        rows_from_file(path, 12, 512)


def test_random_qlora_models_are_nf4_inside_and_plain_outside():
    case = next(case for case in CPU_CASES if case.tuning == "qlora")
    config = config_of(case)
    model = random_model(config, case.model_settings(), attention_name="sdpa")
    assert len(decoder_layers(model)) == config.num_hidden_layers == model.config.num_hidden_layers
    for layer in decoder_layers(model):
        linear = [module for module in layer.modules() if isinstance(module, torch.nn.Linear)]
        assert len(linear) == 7
        assert all(isinstance(m, bnb.nn.Linear4bit) and m.weight.quant_state.nested for m in linear)
    assert type(model.lm_head) is torch.nn.Linear
    seeds = {layer.self_attn.layer_idx for layer in decoder_layers(model)}
    assert seeds == set(range(config.num_hidden_layers))
    logits = model(input_ids=torch.arange(9)[None]).logits
    assert logits.isfinite().all()
    assert logits.std() > 0


def test_model_flops_of_the_8b_shape():
    """Seven billion weights in matrix products, four operations each a token for adapters, six for full training."""
    case = NAMED["8b-lora-align-1024"]
    rows = synthetic_rows(8, 1000, pairs=True)
    tokens = sum(len(row["input_ids"]) for row in rows)
    per_token = model_flops(case, rows) / tokens
    assert 4 * 7.4e9 < per_token < 4 * 7.7e9
    assert len(NAMED) == len(CPU_CASES + GPU_CASES)


@pytest.mark.parametrize(
    ("name", "tflops"), [("NVIDIA L40S", 362), ("NVIDIA L4", 121), ("NVIDIA H200", 989), ("NVIDIA T4", None)]
)
def test_peak_flops_of_a_device(name, tflops, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    assert model_peak_flops() == (tflops and tflops * 1e12)


CPU = torch.device("cpu")


class Card:
    """Takes the place of a training step; has memory for micro-batches of `largest` rows or tokens."""

    def __init__(self, kind, largest, error=torch.OutOfMemoryError):
        self.kind, self.largest, self.error, self.tried = kind, largest, error, []

    def __call__(self, case_fields, contender, rows_file):
        self.tried.append(json.loads(json.dumps(case_fields))[self.kind])
        if self.tried[-1] > self.largest:
            raise self.error("CUDA out of memory. Tried to allocate 2 GiB.")
        return {self.kind: self.tried[-1], "seconds": 1.0}


@pytest.mark.parametrize(
    ("contender", "largest", "tried", "status"),
    [
        (STOCK, 4, [16, 8, 4], "ok"),
        (STOCK, 0, [16, 8, 4, 2, 1], "out of memory"),
        (EXPANDED, 16, [16], "ok"),
        (CACHED, 512, [4096, 2048, 1024, 512], "ok"),
        (CACHED, 511, [4096, 2048, 1024, 512], "out of memory"),
    ],
)
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, FreshProcessError])
def test_who_runs_out_of_memory_tries_half(contender, largest, tried, status, error, monkeypatch):
    kind = "rows_per_micro_batch" if contender in (STOCK, EXPANDED) else "tokens_per_micro_batch"
    card = Card(kind, largest, error)
    monkeypatch.setattr(stepping, "measure_step", card)
    monkeypatch.setattr(stepping, "device", lambda: CPU)  # in this process, where the patch holds
    row = run_step(NAMED["8b-qlora-instruct-128"], contender, None)
    assert card.tried == tried
    assert (row["status"], row[kind]) == (status, tried[-1])
    assert ("reason" in row) == (status != "ok")


def test_other_failures_are_not_tried_again(monkeypatch):
    card = Card("rows_per_micro_batch", 0, lambda _: FreshProcessError("TypeError: no"))
    monkeypatch.setattr(stepping, "measure_step", card)
    monkeypatch.setattr(stepping, "device", lambda: CPU)  # in this process, where the patch holds
    row = run_step(NAMED["8b-qlora-instruct-128"], STOCK, None)
    assert (row["status"], row["reason"], card.tried) == ("failed", "TypeError: no", [16])


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU, where steps run in this process")
def test_rows_say_what_ran(monkeypatch):
    """Our own step halves its micro-batch itself: the size that ran is recorded, and a time with a failed attempt in it is not."""
    case = dataclasses.replace(CASE, rows=4, tokens_per_micro_batch=1024)
    inner, steps = AlignXTrainer._run_step, []

    def runs_out(at):
        def run(self, model, batches):
            steps.append(self.tokens_per_micro_batch)
            if len(steps) == at:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return inner(self, model, batches)

        steps.clear()
        return run

    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(AlignXTrainer, "_run_step", runs_out(at=1))
    row = run_step(case, CACHED, None)
    assert (row["status"], row["attention"], row["tokens_per_micro_batch"]) == ("ok", "sdpa", 512)
    assert steps == [1024, 512, 512]
    monkeypatch.setattr(AlignXTrainer, "_run_step", runs_out(at=2))
    row = run_step(case, CACHED, None)
    assert (row["status"], row["tokens_per_micro_batch"]) == ("ok", 512)
    assert steps == [1024, 1024, 512, 512, 512], "not from a fresh start"
    row = run_step(case, STOCK, None)
    assert (row["status"], row["attention"], row["rows_per_micro_batch"]) == ("ok", "sdpa", 8)
    assert "tokens_per_micro_batch" not in row
