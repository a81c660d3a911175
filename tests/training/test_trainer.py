"""AlignXTrainer: resuming, logging, dev loss, and what happens when something goes wrong."""

import json
from pathlib import Path
from types import SimpleNamespace

import datasets
import numpy as np
import pytest
import torch
from support.tiny_models import random_rows, tiny_model
from transformers import TrainingArguments

from alignx_fast.config import AlignSettings, InstructSettings
from alignx_fast.errors import UserError
from alignx_fast.losses.queue import TargetQueue
from alignx_fast.training import callbacks
from alignx_fast.training.callbacks import RunLog
from alignx_fast.training.checkpoints import last_checkpoint
from alignx_fast.training.sampler import StepSampler
from alignx_fast.training.step import AlignStep
from alignx_fast.training.trainer import AlignXTrainer

ROWS = 10
SETTINGS = AlignSettings.model_validate(
    {
        "pairs_per_step": 4,
        "contrastive": {"learn_temperature": True, "queue_size": 6, "queue_max_age": 2},
        "matching": {"width": 8},
    }
)


def trainer(
    folder: Path,
    *,
    settings: AlignSettings | InstructSettings = SETTINGS,
    steps: int = 7,
    save_steps: int = 100,
    optim: str = "adamw_torch_fused",
    bf16: bool = False,
    **options: object,
) -> AlignXTrainer:
    model = options.pop("model", None) or tiny_model(attention_dropout=0.1)
    args = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        save_steps=save_steps,
        optim=optim,
        bf16=bf16,
        learning_rate=1e-2,
        logging_steps=1,
        report_to="none",
        disable_tqdm=True,
        use_cpu=True,
        seed=3,
        data_seed=3,
        remove_unused_columns=False,
    )
    rows = datasets.Dataset.from_list(random_rows(ROWS))
    return AlignXTrainer(
        model=model,
        args=args,
        settings=settings,
        train_dataset=rows,
        eval_dataset=rows,
        align_layer=2,
        **({"tokens_per_micro_batch": 40} | options),
    )


def weights(found: AlignXTrainer) -> dict[str, torch.Tensor]:
    own = {f"{loss.name}.{name}": value for loss in found.align_step.losses for name, value in loss.state_dict().items()}
    return {**found.model.state_dict(), **own}


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    """Seven steps of four rows out of ten cross two epochs; the run is cut inside the second. Dropout, queue and heads included."""
    whole = trainer(tmp_path / "whole")
    start = {name: value.clone() for name, value in weights(whole).items()}
    torch.manual_seed(3)
    whole.train()
    cut = trainer(tmp_path / "cut", save_steps=4)
    torch.manual_seed(3)
    cut.add_callback(StopAfter(5))
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    checkpoint = last_checkpoint(tmp_path / "cut")
    assert checkpoint is not None
    assert checkpoint.name == "checkpoint-4"
    torch.manual_seed(99)
    resumed = trainer(tmp_path / "cut", model=tiny_model(seed=8, attention_dropout=0.1))
    resumed.train(resume_from_checkpoint=str(checkpoint))
    assert resumed.state.global_step == 7
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(resumed)[name], value, rtol=0, atol=0, msg=name)
        assert not torch.equal(start[name], value), f"{name} was not trained"


def test_a_step_that_fails_loses_no_other(tmp_path: Path) -> None:
    """In the middle of its backward pass, with gradients and random numbers of the step already drawn."""
    whole = trainer(tmp_path / "whole")
    torch.manual_seed(3)
    whole.train()
    cut = trainer(tmp_path / "cut")
    torch.manual_seed(3)

    def fail(*_: object) -> None:
        if cut.state.global_step == 5:
            raise RuntimeError("cosmic ray")

    hook = cut.model.model.layers[1].mlp.register_full_backward_hook(fail)
    assert cut.save_finished_steps() is None
    with pytest.raises(RuntimeError, match="cosmic ray"):
        cut.train()
    hook.remove()
    assert cut.save_finished_steps() == tmp_path / "cut" / "checkpoint-5" == last_checkpoint(tmp_path / "cut")
    assert cut.save_finished_steps() is None
    resumed = trainer(tmp_path / "cut", model=tiny_model(seed=8, attention_dropout=0.1))
    resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / "checkpoint-5"))
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(resumed)[name], value, rtol=0, atol=0, msg=name)


def test_checkpoints_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "SECONDS_BETWEEN_CHECKPOINTS", 20)
    now = iter(range(0, 1000, 8))
    monkeypatch.setattr(callbacks, "time", SimpleNamespace(monotonic=lambda: next(now)))
    found = trainer(tmp_path, steps=7)
    found.add_callback(callbacks.SaveByTheClock())  # at 0; 8, 16, 24 after the first steps, 32 when saved
    found.train()
    assert sorted(path.name for path in tmp_path.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-6", "checkpoint-7"]


class StopAfter(RunLog):
    """Ctrl-C after so many steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_log(self, *_: object, **__: object) -> None:
        pass

    def on_step_end(self, args: object, state: object, control: object, **_: object) -> None:
        if state.global_step == self.steps:
            raise KeyboardInterrupt


def test_half_written_checkpoints_are_passed_over(tmp_path: Path) -> None:
    for step, state in ((5, "{}"), (10, '{"global_st')):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-15").mkdir()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-5"
    assert last_checkpoint(tmp_path / "nothing") is None


@pytest.mark.parametrize("budget", [10_000, 40, 1], ids=["one-shot", "ragged", "row-by-row"])
def test_micro_batches_do_not_change_the_result(tmp_path: Path, budget: int) -> None:
    settings = SETTINGS.model_copy(deep=True)
    settings.matching.scope = "step"
    results = []
    for tokens in (10_000, budget):
        model = tiny_model("bert", torch.float64)
        found = trainer(
            tmp_path / str(tokens), settings=settings, steps=3, model=model, optim="sgd", tokens_per_micro_batch=tokens
        )
        for loss in found.align_step.losses:
            loss.double()
        found.train()
        results.append((found.state.log_history[0]["grad_norm"], weights(found)))
    assert results[0][0] == pytest.approx(results[1][0], rel=1e-5)
    for name, value in results[0][1].items():
        torch.testing.assert_close(results[1][1][name], value, rtol=1e-6, atol=1e-8, msg=name)


def test_stage_two_and_the_run_log(tmp_path: Path) -> None:
    found = trainer(tmp_path, settings=InstructSettings(rows_per_step=4), steps=4)
    found.add_callback(RunLog(tmp_path / "log.jsonl", "instruct", -1))
    before = found.evaluate()["eval_loss"]
    found.train()
    assert found.evaluate()["eval_loss"] < before
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    for name in ("loss", "loss_ntp", "grad_norm", "learning_rate", "tokens_per_second", "memory_gib", "epoch", "time"):
        assert all(line[name] >= 0 for line in lines if "loss" in line), name
    assert [line["step"] for line in lines if line.get("event") == "dev"] == [0, 4]


@pytest.mark.parametrize("settings", [SETTINGS, InstructSettings(rows_per_step=4)], ids=["align", "instruct"])
def test_mixed_precision_reaches_every_pass(tmp_path: Path, settings: AlignSettings | InstructSettings) -> None:
    """fp32 weights, bf16 products: in the first pass, in the pass with a graph, and over the dev set."""
    found = trainer(tmp_path, settings=settings, steps=1, bf16=True)
    layer, dtypes = found.model.model.layers[0].self_attn, []
    layer.q_proj.register_forward_hook(lambda _, __, output: dtypes.append(("query", output.dtype)))
    layer.o_proj.register_forward_pre_hook(lambda _, args: dtypes.append(("attended", args[0].dtype)))
    found.evaluate()
    in_evaluation = len(dtypes)
    found.train()
    assert 0 < in_evaluation < len(dtypes)
    assert set(dtypes) == {("query", torch.bfloat16), ("attended", torch.bfloat16)}
    assert {p.dtype for p in found.model.parameters()} == {torch.float32}


def test_log_of_a_resumed_stage_has_no_line_twice(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    lines = [
        {"stage": stage, "step": step, "time": 1.0 + step, "loss": 1.0} for stage in ("ntp_only", "align") for step in (1, 2, 3)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    RunLog(path, "align", 2)
    kept = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["stage"], line["step"]) for line in kept] == [
        ("ntp_only", 1),
        ("ntp_only", 2),
        ("ntp_only", 3),
        ("align", 1),
        ("align", 2),
    ]


def test_non_finite_loss_is_one_sentence_and_saves_nothing(tmp_path: Path) -> None:
    model = tiny_model()
    model.model.norm.weight.data[0] = torch.nan
    with pytest.raises(UserError, match="is nan at step 1: start again with a lower learning rate"):
        trainer(tmp_path, model=model, save_steps=1).train()
    assert last_checkpoint(tmp_path) is None


def test_packed_rows_are_not_split_over_gpus(tmp_path: Path) -> None:
    assert trainer(tmp_path).args.n_gpu == 1


def test_out_of_memory_halves_and_repeats_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also when gradients were there already: the same rows again, and the result of a run that never ran out."""
    settings = SETTINGS.model_copy(deep=True)
    settings.matching.scope = "step"
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    results = []
    for fails in (False, True):
        found = trainer(
            tmp_path / str(fails),
            settings=settings,
            steps=2,
            model=tiny_model("bert", torch.float64),
            optim="sgd",
            tokens_per_micro_batch=64,
        )
        for loss in found.align_step.losses:
            loss.double()
        found.add_callback(RunLog(tmp_path / f"{fails}.jsonl", "align", -1))
        inner, seen = AlignStep.__call__, []

        def call(self, batches, *args, inner=inner, seen=seen, fails=fails):
            seen.append(torch.cat([batch.meanings for batch in batches]).sort().values.tolist())
            terms = inner(self, batches, *args)
            if fails and len(seen) == 2:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return terms

        with monkeypatch.context() as patch:
            patch.setattr(AlignStep, "__call__", call)
            # the queue is filled at the end of a step, after any real lack of memory
            patch.setattr(TargetQueue, "push", lambda *_: None)
            found.train()
        results.append((found, seen))
    (whole, twice), (repeated, thrice) = results
    assert thrice == [twice[0], twice[1], twice[1]]
    assert repeated.tokens_per_micro_batch == 32
    assert "32 tokens per micro-batch" in caplog.text
    (event,) = [json.loads(line) for line in (tmp_path / "True.jsonl").read_text().splitlines() if "out_of_memory" in line]
    assert (event["step"], event["tokens_per_micro_batch"]) == (1, 32)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(repeated)[name], value, rtol=1e-6, atol=1e-8, msg=name)


def test_sampler_covers_every_row_once_an_epoch() -> None:
    sampler = StepSampler(np.zeros(10), 5, 4, temperature=1.0, seed=0)
    steps = list(sampler)
    assert len(steps) == len(sampler) == 4
    assert sorted(steps[0] + steps[1]) == sorted(steps[2] + steps[3]) == list(range(10))
    assert steps[:2] != steps[2:]


@pytest.mark.parametrize(
    ("change", "words"),
    [({"align_layer": None}, "align_layer is needed"), ({"train_dataset": datasets.Dataset.from_list([])}, "no row")],
)
def test_wrong_arguments(tmp_path: Path, change: dict, words: str) -> None:
    rows = datasets.Dataset.from_list(random_rows(4))
    options = {"train_dataset": rows, "align_layer": 1, "tokens_per_micro_batch": 64} | change
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    with pytest.raises(UserError, match=words):
        AlignXTrainer(model=tiny_model(), args=args, settings=SETTINGS, **options)
