"""The optimizer step equals the method written out in fp64, however it is cut into micro-batches."""

import contextlib
import itertools

import pytest
import torch
import torch.nn.functional as F
from support.tiny_models import random_rows, tiny_model

from alignx_fast.config import AlignSettings, InstructSettings, StageSettings
from alignx_fast.data.packing import PackedBatch, pack
from alignx_fast.losses.base import Loss, ModelShape, Pairs
from alignx_fast.losses.build import build_losses, model_shape
from alignx_fast.losses.contrastive import Contrastive
from alignx_fast.losses.queue import TargetQueue
from alignx_fast.training.cache import build_cache, cached_gradient
from alignx_fast.training.step import AlignStep

LAYER = 2
FAMILY = "bert"
"""Computes in fp64 throughout; Llama's norms and rotary positions always pass through fp32."""


def settings(**contrastive: object) -> AlignSettings:
    return AlignSettings.model_validate(
        {
            "contrastive": {"weight": 0.3, "temperature": 0.2} | contrastive,
            "matching": {"weight": 0.4, "width": 8, "scope": "step"},
        }
    )


def cut(rows: list, budget: int) -> list[PackedBatch]:
    return pack(rows, budget, train_on_prompt=True)


def losses_of(chosen: StageSettings, model: torch.nn.Module) -> list[Loss]:
    return [loss.double() for loss in build_losses(chosen, model_shape(model, LAYER), seed=1)]


def step_of(chosen: StageSettings, model: torch.nn.Module) -> AlignStep:
    return AlignStep(model, losses_of(chosen, model), autocast=contextlib.nullcontext)


def gradients(model: torch.nn.Module, losses: list[Loss]) -> dict[str, torch.Tensor]:
    own = ((f"{loss.name}.{name}", p) for loss in losses for name, p in loss.named_parameters())
    return {name: p.grad.clone() for name, p in itertools.chain(model.named_parameters(), own) if p.grad is not None}


def run(chosen: AlignSettings, rows: list, budget: int, *, dropout: float = 0.0, seed: int = 5) -> tuple[dict, dict]:
    model = tiny_model(FAMILY, torch.float64, hidden_dropout_prob=dropout).train()
    step = step_of(chosen, model)
    torch.manual_seed(seed)
    terms = step(cut(rows, budget), torch.Tensor.backward)
    return terms, gradients(model, step.losses)


def method(chosen: AlignSettings, rows: list) -> tuple[dict, dict]:
    """L_ntp + w_ctr L_ctr + w_lam L_lam, one row at a time, with transformers' own hidden states, all in fp64."""
    model = tiny_model(FAMILY, torch.float64)
    model.set_attn_implementation("eager")
    losses = losses_of(chosen, model)
    matching = next(loss for loss in losses if loss.name == "matching")
    ntp, tokens, sources, targets, lam_sources, lam_targets = 0.0, 0, [], [], [], []
    for row in rows:
        ids = torch.tensor([row["input_ids"]])
        output = model(input_ids=ids, output_hidden_states=True, use_cache=False)
        ntp = ntp + F.cross_entropy(output.logits[0, :-1], ids[0, 1:], reduction="sum")
        tokens += ids.shape[1] - 1
        middle, last = output.hidden_states[LAYER][0], output.hidden_states[-1][0]
        for span, vectors, lam in ((row["source"], sources, lam_sources), (row["target"], targets, lam_targets)):
            vectors.append(middle[span[0] : span[1]].mean(0))
            lam.append(last[span[0] - 1 : span[1] - 1].mean(0))
    similarity = F.cosine_similarity(torch.stack(sources)[:, None], torch.stack(targets)[None], dim=-1) / 0.2
    for i, j in itertools.product(range(len(rows)), repeat=2):
        if chosen.contrastive.mask_false_negatives and i != j and rows[i]["meaning"] == rows[j]["meaning"]:
            similarity = similarity.index_put((torch.tensor(i), torch.tensor(j)), torch.tensor(-torch.inf, dtype=torch.float64))
    ctr = F.cross_entropy(similarity, torch.arange(len(rows)))
    vectors = lam_sources + lam_targets
    languages = [row["src_lang"] for row in rows] + [row["tgt_lang"] for row in rows]
    lam = 0.0
    for (a, lang_a), (b, lang_b) in itertools.product(zip(vectors, languages, strict=True), repeat=2):
        pair = torch.cat([a, b])
        z = matching.down @ (F.silu(matching.gate @ pair) * (matching.up @ pair))
        lam = lam + F.cross_entropy(z, torch.tensor(int(lang_a == lang_b)))
    lam = lam / len(vectors) ** 2
    loss = ntp / tokens + 0.3 * ctr + 0.4 * lam
    loss.backward()
    terms = {"loss": loss, "loss_ntp": ntp / tokens, "loss_contrastive": ctr, "loss_matching": lam}
    return terms, gradients(model, losses)


def assert_equal(found: tuple[dict, dict], expected: tuple[dict, dict], tolerance: float = 1e-8) -> None:
    for name, value in expected[0].items():
        torch.testing.assert_close(found[0][name].double(), value.detach().double(), rtol=1e-5, atol=1e-6, msg=name)
    assert found[1].keys() == expected[1].keys()
    for name, gradient in expected[1].items():
        if not name.endswith("key.bias"):  # adds the same to all scores of a query: no effect, and a gradient of rounding errors
            assert gradient.abs().max() > 1e-8, name
        torch.testing.assert_close(found[1][name], gradient, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("budget", [10_000, 60, 1], ids=["one-shot", "ragged", "row-by-row"])
@pytest.mark.parametrize("masked", [True, False], ids=["masked", "unmasked"])
def test_step_equals_the_method(budget: int, masked: bool) -> None:
    rows, chosen = random_rows(7), settings(mask_false_negatives=masked)
    assert_equal(run(chosen, rows, budget), method(chosen, rows))


@pytest.mark.parametrize(
    "options", [{"symmetric": True}, {"learn_temperature": True}, {"symmetric": True, "learn_temperature": True}]
)
def test_cached_equals_one_shot_with_options(options: dict) -> None:
    rows, chosen = random_rows(9, seed=3), settings(**options)
    one_shot = run(chosen, rows, 10_000)
    assert ("contrastive.log_temperature" in one_shot[1]) == ("learn_temperature" in options)
    assert_equal(run(chosen, rows, 50), one_shot)


def test_dropout_is_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    # One row per micro-batch and no shared draw between rows: the cached vectors must be those of the second pass.
    rows, chosen = random_rows(5), settings()
    model = tiny_model(FAMILY, torch.float64, hidden_dropout_prob=0.3).train()
    step = step_of(chosen, model)
    read: dict[str, list] = {"contrastive": [], "matching": []}
    for loss in step.losses:
        if loss.name in read:
            monkeypatch.setattr(
                loss,
                "read",
                lambda forward, loss=loss: read[loss.name].append(type(loss).read(loss, forward)) or read[loss.name][-1],
            )
    step(cut(rows, 1), torch.Tensor.backward)
    for vectors in read.values():
        first, second = vectors[: len(rows)], vectors[len(rows) :]
        assert len(first) == len(second) == len(rows)
        for before, after in zip(first, second, strict=True):
            assert not before[0].requires_grad
            assert after[0].requires_grad
            torch.testing.assert_close(before, tuple(x.detach() for x in after), rtol=0, atol=0)
    other = run(chosen, rows, 1, dropout=0.3, seed=6)
    same = run(chosen, rows, 1, dropout=0.3, seed=5), run(chosen, rows, 1, dropout=0.3, seed=5)
    assert_equal(same[0], same[1])
    assert other[0]["loss"] != same[0][0]["loss"]


def test_micro_batch_negatives_are_the_weighted_mean() -> None:
    rows, chosen = random_rows(8), settings(negatives="micro_batch")
    chosen.matching.weight = 0.0
    batches = cut(rows, 60)
    assert len(batches) > 1
    terms, found = run(chosen, rows, 60)
    parts = []
    for batch in batches:
        part = run(chosen, [rows[i] for i in batch.rows], 10_000)[0]["loss_contrastive"]
        parts.append(part * len(batch.rows) / len(rows))
    torch.testing.assert_close(terms["loss_contrastive"], sum(parts))
    assert "matching.gate" not in found


def test_next_token_loss_alone_is_accumulated_exactly() -> None:
    rows = random_rows(6)
    results = []
    for budget in (10_000, 40):
        model = tiny_model(FAMILY, torch.float64)
        step = step_of(InstructSettings(), model)
        terms = step(cut(rows, budget), torch.Tensor.backward)
        results.append((terms, gradients(model, step.losses)))
    assert results[0][0].keys() == {"loss", "loss_ntp"}
    assert_equal(results[1], results[0])


def test_queue_adds_negatives_of_bounded_age() -> None:
    chosen = settings(queue_size=10, queue_max_age=2)
    model = tiny_model(FAMILY, torch.float64)
    step = step_of(chosen, model)
    loss = next(loss for loss in step.losses if isinstance(loss, Contrastive))
    sizes = []
    for seed in range(4):
        step(cut(random_rows(4, seed=seed), 10_000), torch.Tensor.backward)
        keys, ids = loss.queue.negatives()
        sizes.append(len(keys))
        assert len(ids) == len(keys)
    assert sizes == [4, 8, 8, 8]
    restored = Contrastive(chosen.contrastive, model_shape(model, LAYER))
    restored.restore(loss.checkpoint())
    assert torch.equal(restored.queue.negatives()[0], loss.queue.negatives()[0])


def test_queue_holds_no_more_than_its_size_asks_for() -> None:
    queue = TargetQueue(5, max_age=8)
    for step in range(6):
        queue.push(torch.full((4, 2), float(step)), torch.full((4,), step))
    assert [len(ids) for _, ids in queue.steps] == [4, 4]
    assert queue.negatives()[1].tolist() == [4, 5, 5, 5, 5]
    queue.push(torch.zeros(100, 2), torch.arange(100))
    assert [len(ids) for _, ids in queue.steps] == [5]


def test_cached_gradients_survive_fp16() -> None:
    """Gradients at single vectors fall below what fp16 can hold, and a loss scale beyond what it can sum: both must stay in fp32."""
    chosen, scale = settings(), 2.0**16
    chosen.contrastive.weight = 1e-3  # as small as with thousands of pairs
    batches = cut(random_rows(40, seed=2), 200)
    assert len(batches) > 1
    cached = []
    for dtype in (torch.float32, torch.float16):
        generator = torch.Generator().manual_seed(0)
        loss = Contrastive(chosen.contrastive, ModelShape(width=32, layers=3, align_layer=LAYER))
        vectors = [
            tuple(100 * torch.randn(len(b.meanings), 32, generator=generator).to(torch.float16).to(dtype) for _ in "cd")
            for b in batches
        ]
        cache = build_cache(loss, vectors, Pairs.of(batches))
        leaf = vectors[0][0].detach().requires_grad_()
        (cached_gradient((leaf, vectors[0][1]), cache.gradients[0]) * scale).backward()
        cached.append(leaf.grad.float() / scale)
    assert 0 < cached[0].abs().max() < 1e-5
    torch.testing.assert_close(cached[1], cached[0], rtol=2e-3, atol=1e-10)


def test_queued_copy_of_the_positive_is_masked() -> None:
    """Rows seen again one step later are queued under their own meaning: they must not count as negatives."""
    rows = random_rows(5)
    plain, queued = settings(), settings(queue_size=100)
    model = tiny_model(FAMILY, torch.float64)
    step = step_of(queued, model)
    step(cut(rows[:1], 10_000), torch.Tensor.backward)
    terms = step(cut(rows[:1], 10_000), torch.Tensor.backward)
    assert terms["loss_contrastive"].item() == pytest.approx(0.0, abs=1e-9)
    assert plain.contrastive.queue_size == 0


def test_phases_are_reported_as_they_end() -> None:
    model, phases = tiny_model(), []
    losses = build_losses(AlignSettings(), model_shape(model, LAYER), seed=0)
    step = AlignStep(model, losses, autocast=contextlib.nullcontext, on_phase=phases.append)
    step(cut(random_rows(6), 60), torch.Tensor.backward)
    assert phases[:2] == ["first_pass", "losses"]
    assert len(phases) > 4
    assert phases[2:] == ["head", "backward"] * (len(phases) // 2 - 1)


def test_dev_values_use_no_queue_and_need_no_weight() -> None:
    rows, model = random_rows(6), tiny_model(FAMILY, torch.float64)
    step = step_of(settings(queue_size=10), model)
    before = step.dev_terms(cut(rows, 60))
    step(cut(rows, 60), torch.Tensor.backward)
    assert step.dev_terms(cut(rows, 60)) == before
    control = step_of(settings().without_losses(), model)
    assert control.dev_terms(cut(rows, 60)) == before
    assert control(cut(rows, 60), torch.Tensor.backward).keys() == {"loss", "loss_ntp"}
