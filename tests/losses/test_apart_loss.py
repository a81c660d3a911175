"""The loss over sentences encoded apart: one sentence at a time in fp64, cached gradients, layers, settings, plan and log."""

import contextlib
import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from support.runs import settings as run_settings
from support.tiny_models import random_rows, tiny_model
from torch import nn

from alignx_fast.config import AlignSettings, Settings, load_settings
from alignx_fast.data.apart import sentences_apart
from alignx_fast.data.packing import pack
from alignx_fast.data.spans import Example
from alignx_fast.errors import UserError
from alignx_fast.losses.apart import ApartSettings
from alignx_fast.losses.base import ModelShape
from alignx_fast.losses.build import build_losses, model_shape, stage_losses
from alignx_fast.losses.centring import centred
from alignx_fast.memory.plan import plan
from alignx_fast.models.checkpointing import checkpoint_layers
from alignx_fast.training.run import train
from alignx_fast.training.step import AlignStep

FAMILY = "bert"
"""Computes in fp64 throughout."""
OPENING = 1
LAYER = 2
GIB = 2**30


def settings(contrastive: float = 0.0, **apart: object) -> AlignSettings:
    chosen = {"weight": 0.7, "temperature": 0.2} | apart
    return AlignSettings.model_validate(
        {"contrastive": {"weight": contrastive}, "matching": {"weight": 0.0}, "apart": chosen},
    )


def step(
    chosen: AlignSettings,
    rows: list[Example],
    budget: int,
    *,
    family: str = FAMILY,
    checkpointing: bool = False,
    dropout: float = 0.0,
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Terms and gradients of one step."""
    changes = {"hidden_dropout_prob": dropout} if family == FAMILY else {}
    model = tiny_model(family, torch.float64 if family == FAMILY else torch.float32, **changes).train()
    checkpoint_layers(model, Settings().model.model_copy(update={"gradient_checkpointing": checkpointing}))
    losses = build_losses(chosen, model_shape(model, LAYER), seed=0)
    torch.manual_seed(3)
    run = AlignStep(model, losses, autocast=contextlib.nullcontext, opening_token=OPENING)
    return run(pack(rows, budget, train_on_prompt=True), torch.Tensor.backward), gradients(model)


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def method(
    rows: list[Example], layers: list[int], masked: bool, centre: bool = False
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Next-token loss and 0.7 L_apart, one sequence at a time, with transformers' own hidden states, all in fp64."""
    model = tiny_model(FAMILY, torch.float64)
    model.set_attn_implementation("eager")
    ntp, tokens = torch.zeros((), dtype=torch.float64), 0
    means: dict[tuple[str, int], list[torch.Tensor]] = {key: [] for key in itertools.product(("source", "target"), layers)}
    for row in rows:
        ids = torch.tensor([row["input_ids"]])
        ntp = ntp + F.cross_entropy(model(input_ids=ids, use_cache=False).logits[0, :-1], ids[0, 1:], reduction="sum")
        tokens += ids.shape[1] - 1
        for side in ("source", "target"):
            start, end = row[side]
            alone = torch.tensor([[OPENING, *row["input_ids"][start:end]]])
            states = model(input_ids=alone, output_hidden_states=True, use_cache=False).hidden_states
            for layer in layers:
                means[side, layer].append(states[layer][0, 1:].mean(0))
    losses = []
    for layer in layers:
        sources, targets = torch.stack(means["source", layer]), torch.stack(means["target", layer])
        if centre:
            sources, targets = without_language_means(sources, targets, rows)
        similarity = F.cosine_similarity(sources[:, None], targets[None], dim=-1) / 0.2
        meanings = torch.tensor([row["meaning"] for row in rows])
        same = (meanings[:, None] == meanings[None]) & ~torch.eye(len(rows), dtype=torch.bool)
        similarity = similarity.masked_fill(same, -torch.inf) if masked else similarity
        labels = torch.arange(len(rows))
        losses.append((F.cross_entropy(similarity, labels) + F.cross_entropy(similarity.T, labels)) / 2)
    apart = torch.stack(losses).mean()
    loss = ntp / tokens + 0.7 * apart
    loss.backward()
    return {"loss": loss, "loss_ntp": ntp / tokens, "loss_apart": apart}, gradients(model)


def without_language_means(
    sources: torch.Tensor, targets: torch.Tensor, rows: list[Example]
) -> tuple[torch.Tensor, torch.Tensor]:
    spoken: dict[int, list[torch.Tensor]] = {}
    for row, source, target in zip(rows, sources, targets, strict=True):
        spoken.setdefault(row["src_lang"], []).append(source)
        spoken.setdefault(row["tgt_lang"], []).append(target)
    mean = {language: sum(vectors) / len(vectors) for language, vectors in spoken.items()}
    sources = torch.stack([vector - mean[row["src_lang"]] for row, vector in zip(rows, sources, strict=True)])
    targets = torch.stack([vector - mean[row["tgt_lang"]] for row, vector in zip(rows, targets, strict=True)])
    return sources, targets


def assert_same(computed: tuple[dict, dict], expected: tuple[dict, dict], tolerance: float = 1e-8) -> None:
    for name, value in expected[0].items():
        torch.testing.assert_close(computed[0][name].double(), value.detach().double(), rtol=1e-5, atol=1e-6, msg=name)
    assert computed[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        if not name.endswith("key.bias"):  # adds the same to all scores of a query, so that its gradient is rounding alone
            assert gradient.abs().max() > 1e-8, name
        torch.testing.assert_close(computed[1][name], gradient, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("budget", [10_000, 60, 1], ids=["one-shot", "ragged", "row-by-row"])
@pytest.mark.parametrize(
    ("layers", "masked"), [([LAYER], True), ([LAYER], False), ([1, 3], True)], ids=["masked", "all", "layers"]
)
def test_step_equals_the_method(budget: int, layers: list[int], masked: bool) -> None:
    rows = random_rows(7)
    chosen = settings(layers=None if layers == [LAYER] else layers, mask_false_negatives=masked)
    assert_same(step(chosen, rows, budget), method(rows, layers, masked))


@pytest.mark.parametrize("budget", [10_000, 60, 1], ids=["one-shot", "ragged", "row-by-row"])
def test_languages_can_be_centred(budget: int) -> None:
    rows = random_rows(9)
    assert_same(step(settings(centre_languages=True), rows, budget), method(rows, [LAYER], True, centre=True))


def test_what_all_sentences_of_a_language_share_is_not_seen() -> None:
    torch.manual_seed(0)
    languages = torch.tensor([0, 1, 1, 0, 2, -1, -1]), torch.tensor([1, 0, 0, 1, 0, 0, 1])
    vectors = [torch.randn(7, 5) for _ in languages]
    shared = torch.cat([10 * torch.randn(3, 5), torch.zeros(1, 5)])  # the last row is for -1: unknown languages share nothing
    others = [vectors_ND + shared[numbers_N] for vectors_ND, numbers_N in zip(vectors, languages, strict=True)]
    with torch.autocast("cpu", torch.bfloat16):  # in which the means must not be taken
        plain, moved = centred(vectors, languages), centred(others, languages)
    for a, b in zip(plain, moved, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    assert plain[0][4].abs().max() < 1e-6  # the only sentence of language 2
    torch.testing.assert_close(plain[0][5:], vectors[0][5:])


def test_beside_the_papers_losses_every_term_keeps_its_value() -> None:
    rows = random_rows(6)
    terms, _ = step(settings(contrastive=0.3), rows, 60)
    alone, _ = step(settings(), rows, 60)
    paper, _ = step(settings(contrastive=0.3, weight=0.0), rows, 60)
    assert terms.keys() == {"loss", "loss_ntp", "loss_contrastive", "loss_apart"}
    for name, other in (("loss_apart", alone), ("loss_contrastive", paper), ("loss_ntp", paper)):
        torch.testing.assert_close(terms[name], other[name], rtol=0, atol=0)
    assert terms["loss"] == pytest.approx(float(terms["loss_ntp"] + 0.3 * terms["loss_contrastive"] + 0.7 * terms["loss_apart"]))


def test_cached_equals_full_batch_with_dropout_of_no_shared_draw() -> None:
    rows = random_rows(5)
    first, second = (step(settings(), rows, 1, dropout=0.3) for _ in range(2))
    assert_same(first, second)
    cached, whole = step(settings(), rows, 50), step(settings(), rows, 10_000)
    assert_same(cached, whole)


def test_negatives_of_the_micro_batch_are_the_weighted_mean() -> None:
    rows, chosen = random_rows(8), settings(negatives="micro_batch")
    batches = pack(rows, 60, train_on_prompt=True)
    assert len(batches) > 1
    terms, _ = step(chosen, rows, 60)
    parts = [step(chosen, [rows[i] for i in b.rows], 10_000)[0]["loss_apart"] * len(b.rows) / len(rows) for b in batches]
    torch.testing.assert_close(terms["loss_apart"], sum(parts))


@pytest.mark.parametrize("budget", [10_000, 60])
def test_a_pass_that_ends_early_may_be_checkpointed(budget: int) -> None:
    """The model is left at the deepest layer that is read, in the middle of a forward pass with a graph."""
    rows = random_rows(6)
    plain, checkpointed = (step(settings(layers=[1]), rows, budget, family="llama", checkpointing=on) for on in (False, True))
    assert_same(checkpointed, plain, tolerance=1e-5)


def test_only_layers_below_the_deepest_run() -> None:
    model = tiny_model("llama")
    ran = []
    for number, layer in enumerate(model.model.layers):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    losses = [loss for loss in build_losses(settings(), ModelShape(32, 3, LAYER), seed=0) if loss.name == "apart"]
    AlignStep(model, losses, autocast=contextlib.nullcontext, opening_token=OPENING)(
        pack(random_rows(4), 10_000, train_on_prompt=True), torch.Tensor.backward
    )
    assert ran == [0, 1]


def test_sentences_stand_behind_one_opening_token() -> None:
    rows = random_rows(5)
    (batch,) = pack(rows, 10_000, train_on_prompt=True)
    alone = sentences_apart(batch, 77)
    expected = [
        [77, *row["input_ids"][slice(*row[side])]] for side in ("source", "target") for row in (rows[i] for i in batch.rows)
    ]
    bounds = alone.cu_seqlens.tolist()
    sentences = [alone.input_ids[0, a:b].tolist() for a, b in itertools.pairwise(bounds)]
    assert sentences == expected
    assert alone.max_length == max(map(len, expected))
    assert alone.position_ids[0].tolist() == [i for sentence in expected for i in range(len(sentence))]
    spans = torch.cat([alone.source_spans, alone.target_spans]).tolist()
    assert [alone.input_ids[0, a:b].tolist() for a, b in spans] == [sentence[1:] for sentence in expected]
    assert alone.num_label_tokens == 0
    assert torch.equal(alone.meanings, batch.meanings)


def test_without_an_opening_token_it_says_so() -> None:
    model = tiny_model()
    losses = build_losses(settings(), model_shape(model, LAYER), seed=0)
    with pytest.raises(UserError, match=r"loss apart encodes sentences apart, .* give AlignXTrainer the tokenizer"):
        AlignStep(model, losses, autocast=contextlib.nullcontext)


def test_settings_from_the_command_line() -> None:
    chosen = load_settings(None, {"align.apart.weight": 1, "align.apart.layers": "2,3"}).align.apart
    assert (chosen.weight, chosen.layers, chosen.temperature) == (1.0, [2, 3], 0.05)
    assert load_settings(None, {"align.apart.layers": 2}).align.apart.layers == [2]
    assert [group.loss.name for group in stage_losses(load_settings(None).align)] == ["ntp", "contrastive", "matching"]
    with pytest.raises(UserError, match=r"Did you mean `align\.apart\.layers`"):
        load_settings(None, {"align.apart.layer": 2})
    with pytest.raises(ValidationError):
        ApartSettings(layers=[0])
    with pytest.raises(UserError, match=r"align.apart.layers names layer 9, but the model has 3 layers; choose from 1 to 3"):
        build_losses(settings(layers=[2, 9]), ModelShape(32, 3, LAYER), seed=0)


def test_a_run_logs_resumes_and_reports_it(tmp_path: Path) -> None:
    def chosen(name: str) -> Settings:
        settings = run_settings(tmp_path, name, tuning="lora", lora={"rank": 4, "dropout": 0.1})
        settings.align.contrastive.weight, settings.align.apart.weight, settings.align.apart.layers = 0.0, 1.0, [1, 2]
        settings.align.tokens_per_micro_batch, settings.align.save_every, settings.align.log_every = 100, 2, 1
        return settings

    train(chosen("whole"), resume=False)
    train(chosen("cut"), resume=False)
    cut, whole = tmp_path / "cut", tmp_path / "whole"
    shutil.rmtree(cut / "align" / "checkpoint-4")
    shutil.rmtree(cut / "align" / "model")
    shutil.rmtree(cut / "model")
    train(chosen("cut"), resume=True)
    for file in ("model/adapter_model.safetensors", "align/checkpoint-4/alignment_heads.safetensors"):
        assert (cut / file).read_bytes() == (whole / file).read_bytes(), file
    lines = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    assert lines[0]["loss_titles"]["apart"] == "contrastive, sentences apart"
    assert [line["step"] for line in lines if line.get("loss_apart", 0) > 0 and "loss_contrastive" not in line] == [1, 2, 3, 4]
    assert all("dev_loss_apart" in line for line in lines if line.get("event") == "dev")
    assert "Stage 1: contrastive, sentences apart" in (whole / "report.html").read_text()


def test_a_layer_that_is_not_there_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    settings = run_settings(tmp_path, "run")
    settings.align.apart.weight, settings.align.apart.layers = 1.0, [7]
    with pytest.raises(UserError, match="names layer 7, but the model has 2 layers"):
        train(settings, resume=False)
    assert not (tmp_path / "run").exists()


def test_the_plan_counts_its_vectors_and_its_time() -> None:
    def planned(**changes: object) -> object:
        values = {
            "model.path": "meta-llama/Llama-3.2-1B",
            "model.tuning": "lora",
            "align.contrastive.weight": 0,
            "align.pairs_per_step": 512,
        }
        return plan(
            load_settings(None, values | {key.replace("__", "."): value for key, value in changes.items()}), gpu_bytes=24 * GIB
        )

    off, one, two = planned(), planned(align__apart__weight=1), planned(align__apart__weight=1, align__apart__layers="4,8")
    vectors = [sum(part.bytes for part in found.parts if part.name == "sentence vectors") for found in (off, one, two)]
    assert vectors == [0, 2 * 2 * 2048 * 512 * 2, 2 * 2 * 2048 * 512 * 4]  # values and gradients in bf16, of sources and targets
    assert "loss kernels" in {part.name for part in one.parts}
    assert one.step_seconds > 1.2 * off.step_seconds
    assert planned(align__apart__weight=1, align__apart__layers=16).step_seconds > one.step_seconds
