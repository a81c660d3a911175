"""Several processes train what one trains: gathered negatives, summed gradients, and the ways in which a run may end."""

import itertools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import datasets
import pytest
import torch
from safetensors.torch import load_file
from support.processes import run_together
from support.runs import settings
from support.tiny_models import random_rows, tiny_model
from transformers import TrainingArguments

from alignx_fast.config import AlignSettings, InstructSettings, LoraSettings, Settings, StageSettings
from alignx_fast.contents import sha256
from alignx_fast.data.packing import assign
from alignx_fast.errors import UserError
from alignx_fast.files import read_object
from alignx_fast.models.adapters import add_adapters
from alignx_fast.training import run as run_module
from alignx_fast.training.callbacks import read_lines
from alignx_fast.training.processes import join, refuse_engines
from alignx_fast.training.run import train
from alignx_fast.training.sampler import rows_in_step
from alignx_fast.training.step import AlignStep
from alignx_fast.training.trainer import AlignXTrainer

STEPS = 5
ALIGN = {"pairs_per_step": 9, "contrastive": {"weight": 0.3}, "matching": {"width": 8, "scope": "step"}}
OWN = {"learn_temperature": True, "symmetric": True, "queue_size": 6, "queue_max_age": 2}
CASES: dict[str, tuple[StageSettings, int, str]] = {
    "ntp": (InstructSettings(rows_per_step=9), 60, "adamw_torch"),
    "step": (AlignSettings.model_validate(ALIGN), 60, "adamw_torch"),
    "one-shot": (AlignSettings.model_validate(ALIGN), 10_000, "adamw_torch"),
    "row-by-row": (AlignSettings.model_validate(ALIGN), 1, "adamw_torch"),
    "own": (AlignSettings.model_validate(ALIGN | {"contrastive": {"weight": 0.3} | OWN}), 60, "sgd"),
    "queue": (AlignSettings.model_validate(ALIGN | {"contrastive": {"negatives": "micro_batch"} | OWN}), 1, "sgd"),
    "apart": (
        AlignSettings.model_validate(ALIGN | {"apart": {"weight": 1.0, "layers": [1, 3], "centre_languages": True}}),
        60,
        "sgd",
    ),
    "adapters": (AlignSettings.model_validate(ALIGN), 60, "sgd"),
}
"""Settings, tokens in a micro-batch, optimizer. AdamW makes whole steps of gradients that are nothing but rounding errors."""
FAST = ["ntp", "own", "adapters"]


class Opening:
    """A tokenizer, as far as its opening token is asked for."""

    bos_token_id = cls_token_id = eos_token_id = sep_token_id = 1

    def save_pretrained(self, folder: str) -> None:
        pass


def trained(names: list[str]) -> dict[str, dict[str, torch.Tensor]]:
    """Weights and log of each case after its steps."""
    return {name: train_one(*CASES[name], adapters=name == "adapters") for name in names}


def train_one(stage: StageSettings, tokens: int, optimizer: str, *, adapters: bool) -> dict[str, torch.Tensor]:
    model = tiny_model()
    if adapters:
        torch.manual_seed(1)
        model = add_adapters(model, LoraSettings(rank=4))
    rows = datasets.Dataset.from_list(random_rows(25))
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            output_dir=folder,
            max_steps=STEPS,
            optim=optimizer,
            learning_rate=1e-3 if optimizer == "adamw_torch" else 0.1,
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
            remove_unused_columns=False,
        )
        trainer = AlignXTrainer(
            model=model,
            args=args,
            settings=stage,
            train_dataset=rows,
            eval_dataset=rows,
            align_layer=2,
            tokens_per_micro_batch=tokens,
            processing_class=Opening(),
        )
        before = [parameter.detach().clone() for parameter in model.parameters() if parameter.requires_grad]
        trainer.train()
        after = (parameter for parameter in model.parameters() if parameter.requires_grad)
        assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))
        dev = trainer.evaluate()
    own = {f"{loss.name}.{key}": value for loss in trainer.align_step.losses for key, value in loss.checkpoint().items()}
    found = {name: value.detach().clone() for name, value in {**model.state_dict(), **own}.items()}
    lines = [line for line in trainer.state.log_history if "loss_ntp" in line]
    logged = {f"{name} of step {i}": value for i, line in enumerate(lines) for name, value in line.items() if is_value(name)}
    return found | {name: torch.tensor(value) for name, value in (logged | dev).items()}


def is_value(name: str) -> bool:
    return name.startswith("loss") or name in ("grad_norm", "tokens", "flops")


def assert_same(count: int, names: list[str]) -> None:
    alone, every = trained(names), run_together(count, trained, names)
    for name, expected in alone.items():
        for part, value in expected.items():
            if name == "one-shot" and part.startswith("flops"):
                continue  # alone the step is one micro-batch, which needs no first pass
            if "of step" in part or part.startswith("eval"):
                assert every[0][name][part].item() == pytest.approx(value.item(), rel=1e-5, abs=1e-6), f"{name}, {part}"
                continue
            difference = (every[0][name][part] - value).abs().max().item()
            assert difference < 1e-6, f"{name}, {part}: {difference}"
            for other in every[1:]:
                assert torch.equal(other[name][part], every[0][name][part]), f"{name}: {part} differs between processes"


def agreements() -> list[str]:
    """What this process raises when the second fails at different places while the first is elsewhere."""
    together, raised = join(), []
    fails = together.rank == 1

    def outside() -> None:
        if fails:
            raise UserError("Another file here.")
        together.first(lambda: None)

    def before_gathering() -> None:
        if fails:
            raise torch.OutOfMemoryError("CUDA out of memory")
        together.gather([(torch.zeros(2, 3),)], [2, 2])

    def at_the_end() -> None:
        together.sum([torch.zeros(3)])
        if fails:
            raise ValueError("of a library")

    def in_the_first() -> None:
        together.first(lambda: 1 / 0)

    for place in (outside, before_gathering, at_the_end, in_the_first):
        try:
            with together.agreed(), together.agreed():
                place()
        except Exception as error:
            raised.append(f"{type(error).__name__}: {error}")
    assert together.each(together.rank) == [0, 1]
    return raised


def test_no_process_waits_for_one_that_failed() -> None:
    first, second = run_together(2, agreements)
    assert first == [
        "OtherProcessError: Process 1: Another file here.",
        "OutOfMemoryError: Another process ran out of memory.",
        "OtherProcessError: Process 1: ValueError: of a library",
        "ZeroDivisionError: division by zero",
    ]
    assert second == [
        "UserError: Another file here.",
        "OutOfMemoryError: CUDA out of memory",
        "ValueError: of a library",
        "OtherProcessError: Process 0: ZeroDivisionError: division by zero",
    ]


def test_two_processes_train_what_one_does() -> None:
    assert_same(2, FAST)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_processes_train_what_one_does(count: int) -> None:
    assert_same(count, list(CASES))


# Whole runs.

DROPOUT = {"tuning": "lora", "lora.dropout": 0.3}


def failing_runs(folder: Path, names: list[str]) -> dict[str, str]:
    """What becomes of runs of this process and the others in which something fails in one: the sentence of each."""
    cases = {
        "step": (AlignStep, "forward_backward", fail_once(1, RuntimeError("cosmic ray"), call=4)),
        "memory": (AlignStep, "first_pass", fail_once(1, torch.OutOfMemoryError("CUDA out of memory"), call=3)),
        "loading": (run_module, "load_model", fail_once(1, UserError("Weights of another node."), call=1)),
        "preparing": (run_module, "prepare", fail_once(0, UserError("No rows."), call=1)),
    }
    found = {}
    for name in names:
        owner, function, failing = cases[name]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch.cuda, "empty_cache", lambda: None)
            patch.setattr(owner, function, failing(getattr(owner, function)))
            try:
                train(wanted(folder, name), resume=False)
                found[name] = "trained"
            except Exception as error:
                found[name] = f"{type(error).__name__}: {error}"
    train(wanted(folder, "step"), resume=True)
    return found


def run_with_a_bad_step(folder: Path) -> str:
    """The weights after a run in which one process alone finds NaN, in the second step."""
    inner, steps = AlignStep._micro_batch_loss, []

    def spoiled(self: AlignStep, run: object, i: int, *arguments: object) -> object:
        total, vectors = inner(self, run, i, *arguments)
        steps.append(i)
        is_second = steps.count(i) == 2
        return (total * float("nan") if i == 1 and is_second else total), vectors

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AlignStep, "_micro_batch_loss", spoiled)
        train(wanted(folder, "bad step"), resume=False)
    return sha256(folder / "bad step" / "model" / "model.safetensors")


def whole_runs(folder: Path) -> None:
    """Runs without a failure, and others that go on from their middle."""
    train(wanted(folder, "whole"), resume=False)
    train(wanted(folder, "one, then two"), resume=True)
    train(wanted(folder, "dropout", **DROPOUT), resume=False)
    join().first(lambda: (shutil.copytree(folder / "dropout", folder / "dropout, cut"), cut(folder / "dropout, cut")))
    train(wanted(folder, "dropout, cut", **DROPOUT), resume=True)


def fail_once(rank: int, error: Exception, *, call: int) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """A function that fails in one process at one of its calls."""

    def failing(function: Callable[..., object]) -> Callable[..., object]:
        calls = itertools.count(1)

        def called(*arguments: object, **options: object) -> object:
            if next(calls) == call and join().rank == rank:
                raise error
            return function(*arguments, **options)

        return called

    return failing


def wanted(folder: Path, run: str, **model: object) -> Settings:
    chosen = settings(folder, run, **model)
    chosen.align.log_every = 1
    chosen.align.save_every = 2
    chosen.align.matching.scope = "step"
    chosen.align.tokens_per_micro_batch = 300
    return chosen


def cut(run: Path) -> None:
    """As if it had been killed after step 2."""
    for done in ("model", "align/model", "align/checkpoint-4"):
        shutil.rmtree(run / done)


def losses(run: Path) -> list[float]:
    return [line["loss"] for line in read_lines(run / "log.jsonl") if "loss" in line]


def assert_trained_alike(folder: Path, run: str) -> None:
    """A run ended with the losses and weights of the run `alone`, and let go of its folder."""
    assert losses(folder / run) == pytest.approx(losses(folder / "alone"), rel=1e-4), run
    assert not (folder / run / "lock").exists()
    model = load_file(folder / run / "model" / "model.safetensors")
    for name, value in load_file(folder / "alone" / "model" / "model.safetensors").items():
        torch.testing.assert_close(model[name], value, rtol=1e-3, atol=1e-4, msg=f"{run}: {name}")


def test_a_step_that_is_bad_in_one_process_is_skipped_by_both(tmp_path: Path) -> None:
    first, second = run_together(2, run_with_a_bad_step, tmp_path)
    assert first == second
    assert read_object(tmp_path / "bad step" / "align" / "stage.json")["skipped_steps"] == 1
    (file,) = (tmp_path / "bad step" / "align" / "skipped").iterdir()
    assert file.name == "step-2.jsonl"
    assert len(losses(tmp_path / "bad step")) == 3


@pytest.mark.slow
def test_a_failure_in_one_process_ends_both(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """With the steps before it saved, from which both go on."""
    train(wanted(tmp_path, "alone"), resume=False)
    capfd.readouterr()
    first, second = run_together(2, failing_runs, tmp_path, ["step"])
    assert first == {"step": "OtherProcessError: Process 1: RuntimeError: cosmic ray"}
    assert second == {"step": "RuntimeError: cosmic ray"}
    assert capfd.readouterr().out.count("Report:") == 1
    assert_trained_alike(tmp_path, "step")


@pytest.mark.slow
def test_failures_of_every_kind(tmp_path: Path) -> None:
    train(wanted(tmp_path, "alone"), resume=False)
    first, second = run_together(2, failing_runs, tmp_path, ["memory", "loading", "preparing", "step"])
    assert first | {"step": ""} == {
        "memory": "trained",
        "loading": "OtherProcessError: Process 1: Weights of another node.",
        "preparing": "UserError: No rows.",
        "step": "",
    }
    assert second | {"step": ""} == first | {
        "loading": "UserError: Weights of another node.",
        "preparing": "OtherProcessError: Process 0: No rows.",
        "step": "",
    }
    for run in ("memory", "step"):
        assert_trained_alike(tmp_path, run)


@pytest.mark.slow
def test_a_run_goes_on_in_another_number_of_processes(tmp_path: Path) -> None:
    """And exactly in the same number, dropout included."""
    train(wanted(tmp_path, "alone"), resume=False)
    shutil.copytree(tmp_path / "alone", tmp_path / "one, then two")
    cut(tmp_path / "one, then two")
    run_together(2, whole_runs, tmp_path)
    shutil.copytree(tmp_path / "whole", tmp_path / "two, then one")
    cut(tmp_path / "two, then one")
    train(wanted(tmp_path, "two, then one"), resume=True)
    for run in ("whole", "one, then two", "two, then one"):
        assert_trained_alike(tmp_path, run)
    models = [tmp_path / run / "model" / "adapter_model.safetensors" for run in ("dropout", "dropout, cut")]
    assert sha256(models[0]) == sha256(models[1])


def test_engines_that_split_a_model_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UserError, match="FSDP is not supported"):
        refuse_engines()


def test_a_step_with_fewer_rows_than_processes_is_refused() -> None:
    with pytest.raises(UserError, match="8 processes cannot share 4 rows a step"):
        rows_in_step(AlignSettings(pairs_per_step=4), 100, 8)


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("budget", [1, 17, 40, 10_000])
def test_micro_batches_are_shared_evenly(processes: int, budget: int) -> None:
    lengths = [len(row["input_ids"]) for row in random_rows(20)]
    bins = assign(lengths, budget, processes)
    assert sorted(i for bin_ in bins for i in bin_) == list(range(20))
    assert all(bins)
    assert all(len(bin_) == 1 or sum(lengths[i] for i in bin_) <= budget for bin_ in bins)
    assert len(bins) % processes == 0 or len(bins) == 20
    if len(assign(lengths, budget)) % processes == 0:
        assert bins == assign(lengths, budget)
