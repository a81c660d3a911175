"""Plans: known figures, what they must obey, what is said when a model does not fit."""

from typing import Any

import pytest
import torch
from rich.console import Console
from support.tiny_models import tiny_model

from alignx_fast.config import Settings, load_settings
from alignx_fast.errors import UserError
from alignx_fast.losses.cost import PHASES
from alignx_fast.memory.advice import apply, changes, check_fits
from alignx_fast.memory.gpus import GIB, parse_memory, representative
from alignx_fast.memory.plan import CPU_TOKENS, HEADROOM, MOST_TOKENS, Plan, auto_tokens_per_micro_batch, plan
from alignx_fast.memory.render import render
from alignx_fast.recipes import find
from alignx_fast.stages import Stage
from alignx_fast.training.measure import measure
from alignx_fast.verbs.plan import show

LLAMA = "meta-llama/Meta-Llama-3-8B-Instruct"
QLORA = {"model.path": LLAMA, "model.tuning": "qlora", "model.gradient_checkpointing": True, "align.pairs_per_step": 1024}


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


def settings(**changed: Any) -> Settings:
    return load_settings(None, QLORA | {key.replace("__", "."): value for key, value in changed.items()})


def planned(gib: float = 24, stage: Stage = "align", **changed: Any) -> Plan:
    return plan(settings(**changed), gpu_bytes=round(gib * GIB), stage=stage)


def test_known_figures_of_an_8b_model_in_4_bits() -> None:
    found = planned(align__tokens_per_micro_batch=4096)
    gib = {part.name: part.bytes / GIB for part in found.parts}
    assert found.parameters == 8_030_261_248
    assert gib["weights (NF4)"] == pytest.approx(3.25, abs=0.005)
    assert gib["quantisation scales"] == pytest.approx(0.10, abs=0.005)
    assert gib["embeddings and head (bf16)"] == pytest.approx(1.96, abs=0.005)
    assert gib["adapters (fp32)"] + gib["gradients"] == pytest.approx(0.31, abs=0.005)
    assert gib["optimizer (paged_adamw_8bit)"] == pytest.approx(0.08, abs=0.005)
    assert gib["activation checkpoints"] == 1.0
    before_workspace = sum(gib[name] for name in list(gib)[:6]) + gib["activation checkpoints"]
    assert before_workspace == pytest.approx(6.7, abs=0.05)


@pytest.mark.parametrize("stage", ["align", "instruct"])
def test_memory_rises_with_tokens(stage: Stage) -> None:
    totals = [planned(stage=stage, **{f"{stage}__tokens_per_micro_batch": tokens}).total for tokens in (512, 1024, 4096, 16384)]
    assert totals == sorted(totals)
    assert len(set(totals)) == 4


@pytest.mark.parametrize("gib", [8, 10, 12])
def test_the_largest_micro_batch_fits_and_a_larger_one_does_not(gib: float) -> None:
    largest = planned(gib).largest
    assert largest is not None
    assert 512 <= largest < MOST_TOKENS

    def share(tokens: int) -> float:
        return planned(gib, align__tokens_per_micro_batch=tokens).total / (gib * GIB)

    assert share(largest) <= 1 - HEADROOM < share(largest + 256)


def test_pairs_cost_hardly_any_memory() -> None:
    few, many = (planned(align__pairs_per_step=pairs, align__tokens_per_micro_batch=4096) for pairs in (1024, 4096))
    assert 0 < many.allocated - few.allocated < GIB // 2


def test_options_move_memory_the_right_way() -> None:
    base = planned(align__tokens_per_micro_batch=4096)
    assert planned(align__tokens_per_micro_batch=4096, model__gradient_checkpointing=False).total > base.total
    assert planned(align__tokens_per_micro_batch=4096, model__gradient_checkpointing=4).total > base.total
    offloaded = planned(align__tokens_per_micro_batch=4096, model__offload_checkpoints=True)
    assert base.allocated - offloaded.allocated == offloaded.cpu_bytes == GIB
    assert planned(align__tokens_per_micro_batch=4096, model__tuning="lora").total > base.total + 8 * GIB


def test_cached_gradients_cost_the_pass_to_the_align_layer() -> None:
    cached = planned(align__tokens_per_micro_batch=4096)
    alone = planned(align__tokens_per_micro_batch=4096, align__contrastive__negatives="micro_batch")
    assert 1.1 < cached.step_seconds / alone.step_seconds < 1.25


def test_published_shapes_are_named_as_such_and_unknown_models_refused() -> None:
    text = shown(planned())
    assert "published figures" in text
    assert "not measured" in text
    with pytest.raises(UserError, match="nobody/no-such-model"):
        planned(model__path="nobody/no-such-model")
    with pytest.raises(UserError, match="Cannot read the configuration"):
        planned(model__path="./no-such-folder")


def test_the_tiny_model_is_planned_too() -> None:
    found = plan(Settings(), gpu_bytes=8 * GIB)
    assert found.fits
    assert found.origin == "settings"
    assert "published" not in shown(found)


def shown(found: Plan) -> str:
    console = Console(width=200, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(render(found))
    return capture.get()


def test_the_table_names_every_component() -> None:
    found = planned()
    text = shown(found)
    assert all(part.name in text for part in found.parts)
    assert f"{found.total / GIB:.2f}" in text


def test_what_does_not_fit_is_refused_with_changes_that_do() -> None:
    wanted = settings(model__tuning="lora", model__gradient_checkpointing=False)
    with pytest.raises(UserError, match=r"needs \d+\.\d GiB by plan.*--model.tuning qlora"):
        check_fits(wanted, 16 * GIB)
    ways = changes(wanted, gpu_bytes=16 * GIB)
    assert ways
    for way in ways:
        assert plan(apply(wanted, way), gpu_bytes=16 * GIB).fits
        for left_out in range(len(way)):
            fewer = way[:left_out] + way[left_out + 1 :]
            assert not plan(apply(wanted, fewer), gpu_bytes=16 * GIB).fits
    costs = [sum(change.cost for change in way) for way in ways]
    assert costs == sorted(costs)


def test_several_ways_out() -> None:
    wanted = settings(
        model__path="google/gemma-2b",
        model__tuning="lora",
        model__gradient_checkpointing=False,
        align__tokens_per_micro_batch=8192,
    )
    ways = changes(wanted, gpu_bytes=16 * GIB)
    options = [[change.option for change in way] for way in ways]
    assert ["--align.tokens_per_micro_batch auto"] in options
    assert ["--model.gradient_checkpointing true"] in options


def test_every_stage_fits_with_a_change(capsys: pytest.CaptureFixture[str]) -> None:
    """Full fine-tuning of 2.5 billion parameters: one stage's optimizer alone would leave the other without room."""
    wanted = load_settings(find("reference"))
    ways = changes(wanted, gpu_bytes=40 * GIB)
    assert [change.setting for change in ways[0]] == ["align.optimizer", "instruct.optimizer"]
    for way in ways:
        check_fits(apply(wanted, way), 40 * GIB)
    show(wanted, "40GiB", measured=False)
    assert "--align.optimizer paged_adamw_8bit --instruct.optimizer paged_adamw_8bit" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("change", "option"),
    [
        ({"align__pairs_per_step": 2_000_000}, "align.pairs_per_step"),
        ({"model__lora__rank": 1024}, "model.lora.rank"),
        ({"align__contrastive__queue_size": 2_000_000}, "align.contrastive.queue_size"),
    ],
)
def test_what_was_set_too_large_is_found(change: dict, option: str) -> None:
    ways = changes(settings(**change), gpu_bytes=12 * GIB)
    assert [found.setting for found in ways[0]] == [option]


def test_a_hopeless_case_is_called_so(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UserError, match="smaller model or a larger GPU"):
        check_fits(settings(), 4 * GIB)
    show(settings(), "4GiB", measured=False)
    assert "No change of settings makes it fit" in capsys.readouterr().out


def test_a_target_that_no_module_has() -> None:
    with pytest.raises(UserError, match="names 'nosuch', and LlamaForCausalLM has no module of that name"):
        planned(model__lora__target_modules=["q_proj", "nosuch"])


def test_what_fits_is_let_through() -> None:
    check_fits(settings(), 24 * GIB)


def test_amounts_of_memory() -> None:
    assert parse_memory("24GiB") == parse_memory("24 GB") == parse_memory("24") == 24 * GIB
    assert parse_memory("11.5GiB") == round(11.5 * GIB)
    assert parse_memory("24564 MiB") == parse_memory("24564mb") == 24564 << 20
    with pytest.raises(UserError, match="24GiB"):
        parse_memory("large")


@pytest.mark.parametrize(("gib", "name"), [(8, "RTX 4070"), (12, "RTX 4070"), (23.6, "RTX 4090"), (141, "H200")])
def test_a_card_stands_for_its_size(gib: float, name: str) -> None:
    assert representative(round(gib * GIB)).name == name


def test_a_card_is_known_by_name() -> None:
    assert representative(24 * GIB, "NVIDIA GeForce RTX 3090").name == "RTX 3090"
    assert representative(40 * GIB, "NVIDIA A100-SXM4-40GB").name == "A100 40GB"


def test_on_a_cpu_micro_batches_are_a_constant() -> None:
    assert auto_tokens_per_micro_batch(settings(), tiny_model(), "align") == CPU_TOKENS


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_measuring_without_a_gpu_is_refused() -> None:
    with pytest.raises(UserError, match="CUDA GPU"):
        measure(settings())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("tuning", ["qlora", "lora"])
def test_the_plan_is_within_a_tenth_of_what_is_measured(tuning: str) -> None:
    changed = {"model__path": "meta-llama/Llama-3.2-1B", "model__tuning": tuning, "align__tokens_per_micro_batch": 4096}
    found = {line.phase: line for line in measure(settings(**changed)).phases}
    assert set(found) == set(PHASES)
    most = max(found.values(), key=lambda line: line.measured)
    assert abs(most.error) <= 0.1, found
