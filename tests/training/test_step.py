"""The optimizer step equals the method written out in fp64, however it is cut into micro-batches."""

import contextlib
import itertools

import pytest
import torch
import torch.nn.functional as F
from support.tiny_models import random_rows, tiny_model

from alignx_fast.config import AlignSettings
from alignx_fast.data.packing import PackedBatch, pack
from alignx_fast.models.heads import AlignmentHeads
from alignx_fast.training.objective import Vectors
from alignx_fast.training.queue import TargetQueue
from alignx_fast.training.step import AlignStep, _dot, ntp_step

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


def gradients(model: torch.nn.Module, heads: torch.nn.Module) -> dict[str, torch.Tensor]:
    named = itertools.chain(model.named_parameters(), (("heads." + n, p) for n, p in heads.named_parameters()))
    return {name: p.grad.clone() for name, p in named if p.grad is not None}


def run(chosen: AlignSettings, rows: list, budget: int, *, dropout: float = 0.0, seed: int = 5) -> tuple[dict, dict]:
    model = tiny_model(FAMILY, torch.float64, hidden_dropout_prob=dropout).train()
    torch.manual_seed(1)
    heads = AlignmentHeads(32, chosen).double()
    step = AlignStep(model, heads, chosen, LAYER, contextlib.nullcontext)
    batches = cut(rows, budget)
    torch.manual_seed(seed)
    terms = step(batches, sum(b.num_label_tokens for b in batches), torch.Tensor.backward)
    return terms, gradients(model, heads)


def method(chosen: AlignSettings, rows: list) -> tuple[dict, dict]:
    """L_ntp + w_ctr L_ctr + w_lam L_lam, one row at a time, with transformers' own hidden states, all in fp64."""
    model = tiny_model(FAMILY, torch.float64)
    model.set_attn_implementation("eager")
    torch.manual_seed(1)
    heads = AlignmentHeads(32, chosen).double()
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
        z = heads.down @ (F.silu(heads.gate @ pair) * (heads.up @ pair))
        lam = lam + F.cross_entropy(z, torch.tensor(int(lang_a == lang_b)))
    lam = lam / len(vectors) ** 2
    loss = ntp / tokens + 0.3 * ctr + 0.4 * lam
    loss.backward()
    terms = {"loss": loss, "loss_ntp": ntp / tokens, "loss_contrastive": ctr, "loss_matching": lam}
    return terms, gradients(model, heads)


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
    assert ("heads.log_temperature" in one_shot[1]) == ("learn_temperature" in options)
    assert_equal(run(chosen, rows, 50), one_shot)


def test_dropout_is_replayed() -> None:
    # One row per micro-batch and no shared draw between rows: the cached vectors must be those of the second pass.
    rows, chosen = random_rows(5), settings()
    model = tiny_model(FAMILY, torch.float64, hidden_dropout_prob=0.3).train()
    heads = AlignmentHeads(32, chosen).double()
    step = AlignStep(model, heads, chosen, LAYER, contextlib.nullcontext)
    first, replayed = [], []
    inner = step.forward_no_grad
    step.forward_no_grad = lambda *args, **kwargs: first.append(inner(*args, **kwargs)) or first[-1]
    with pytest.MonkeyPatch.context() as patch:
        from alignx_fast.training import step as module

        forward = module.forward_pooled
        patch.setattr(module, "forward_pooled", lambda *a, **k: replayed.append(forward(*a, **k)) or replayed[-1])
        batches = cut(rows, 1)
        step(batches, sum(b.num_label_tokens for b in batches), torch.Tensor.backward)
    # `to_the_end` runs go through forward_pooled too: the last len(rows) calls are the second pass.
    assert len(first) == len(rows)
    for before, (_, after) in zip(first, replayed[-len(rows) :], strict=True):
        torch.testing.assert_close(before.sources_ND, after.sources_ND.detach(), rtol=0, atol=0)
        torch.testing.assert_close(before.matching_MD, after.matching_MD.detach(), rtol=0, atol=0)
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
    assert "heads.gate" not in found


def test_next_token_loss_alone_is_accumulated_exactly() -> None:
    rows = random_rows(6)
    results = []
    for budget in (10_000, 40):
        model = tiny_model(FAMILY, torch.float64)
        batches = cut(rows, budget)
        terms = ntp_step(model, batches, sum(b.num_label_tokens for b in batches), torch.Tensor.backward, contextlib.nullcontext)
        results.append((terms, gradients(model, torch.nn.Module())))
    assert_equal(results[1], results[0])


def test_queue_adds_negatives_of_bounded_age() -> None:
    chosen = settings(queue_size=10, queue_max_age=2)
    model = tiny_model(FAMILY, torch.float64)
    step = AlignStep(model, AlignmentHeads(32, chosen).double(), chosen, LAYER, contextlib.nullcontext)
    sizes = []
    for seed in range(4):
        batches = cut(random_rows(4, seed=seed), 10_000)
        step(batches, batches[0].num_label_tokens, torch.Tensor.backward)
        keys, ids = step.queue.negatives()
        sizes.append(len(keys))
        assert len(ids) == len(keys)
    assert sizes == [4, 8, 8, 8]
    restored = AlignStep(model, step.heads, chosen, LAYER, contextlib.nullcontext)
    restored.queue.load_state_dict(step.queue.state_dict(), torch.device("cpu"))
    assert torch.equal(restored.queue.negatives()[0], step.queue.negatives()[0])


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
    rows, chosen, scale = random_rows(40, seed=2), settings(), 2.0**16
    chosen.matching.scope = "micro_batch"
    chosen.contrastive.weight = 1e-3  # as small as with thousands of pairs
    batches = cut(rows, 200)
    assert len(batches) > 1
    cached = []
    for dtype in (torch.float32, torch.float16):
        generator = torch.Generator().manual_seed(0)
        step = AlignStep(tiny_model(), AlignmentHeads(32, chosen), chosen, LAYER, contextlib.nullcontext)
        vectors = [
            Vectors(
                *(100 * torch.randn(len(b.meanings), 32, generator=generator).to(torch.float16).to(dtype) for _ in "cd"), None
            )
            for b in batches
        ]
        cache, _, _ = step.build_cache(batches, vectors, contrastive=True, matching=False)
        assert isinstance(cache[0], Vectors)
        leaf = vectors[0].sources_ND.detach().requires_grad_()
        (_dot(Vectors(leaf, vectors[0].targets_ND, None), cache[0]) * scale).backward()
        cached.append(leaf.grad.float() / scale)
    assert 0 < cached[0].abs().max() < 1e-5
    torch.testing.assert_close(cached[1], cached[0], rtol=2e-3, atol=1e-10)


def test_queued_copy_of_the_positive_is_masked() -> None:
    """Rows seen again one step later are queued under their own meaning: they must not count as negatives."""
    rows = random_rows(5)
    plain, queued = settings(), settings(queue_size=100)
    model = tiny_model(FAMILY, torch.float64)
    step = AlignStep(model, AlignmentHeads(32, queued).double(), queued, LAYER, contextlib.nullcontext)
    batches = cut(rows[:1], 10_000)
    step(batches, batches[0].num_label_tokens, torch.Tensor.backward)
    terms = step(batches, batches[0].num_label_tokens, torch.Tensor.backward)
    assert terms["loss_contrastive"].item() == pytest.approx(0.0, abs=1e-9)
    assert plain.contrastive.queue_size == 0
