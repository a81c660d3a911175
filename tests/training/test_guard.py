"""What is not finite never leaves: bad steps are skipped, too many end the run, and nothing of it is saved."""

import json
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from support.runs import settings
from support.tiny_models import tiny_model
from training.test_trainer import SETTINGS, StopAfter, trainer, weights

from alignx_fast.config import AlignSettings, ModelSettings, Settings
from alignx_fast.errors import UserError
from alignx_fast.losses.next_token import NextToken
from alignx_fast.models.finite import check_finite_files, non_finite
from alignx_fast.training.callbacks import RunLog
from alignx_fast.training.checkpoints import LOSSES_FILE, last_checkpoint
from alignx_fast.training.run import train
from alignx_fast.training.trainer import AlignXTrainer

Spoil = Callable[[torch.Tensor], torch.Tensor]


def loss_is(value: float) -> Spoil:
    """The next-token loss takes this value."""
    return lambda part: part * value


class Overflow(torch.autograd.Function):
    """The value as it is, with gradients that are not finite."""

    @staticmethod
    def forward(_: object, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(_: object, gradient: torch.Tensor) -> torch.Tensor:
        return gradient * math.inf


KINDS: dict[str, Spoil] = {"nan": loss_is(math.nan), "infinity": loss_is(math.inf), "gradients": Overflow.apply}


@contextmanager
def bad_steps(found: AlignXTrainer, steps: set[int], spoil: Spoil = KINDS["nan"]) -> Iterator[None]:
    """Spoil the training loss of these steps, counted from 1; dev losses stay as they are."""
    inner = NextToken.of_micro_batch

    def of_micro_batch(self: NextToken, *args: object) -> torch.Tensor:
        part = inner(self, *args)
        return spoil(part) if torch.is_grad_enabled() and found.state.global_step + 1 in steps else part

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(NextToken, "of_micro_batch", of_micro_batch)
        yield


def everything(found: AlignXTrainer) -> dict[str, object]:
    """Weights, optimizer, learning rate and what the losses remember."""
    own = {f"{loss.name}.{name}": value.clone() for loss in found.align_step.losses for name, value in loss.checkpoint().items()}
    moments = {
        f"{i}.{name}": value.clone()
        for i, state in enumerate(found.optimizer.state.values())
        for name, value in state.items()
        if isinstance(value, torch.Tensor)
    }
    kept = {name: value.clone() for name, value in weights(found).items()}
    return kept | own | moments | {"rate": found.lr_scheduler.get_last_lr(), "steps": found.lr_scheduler.last_epoch}


class Watch(StopAfter):
    """Everything after each step."""

    def __init__(self, found: AlignXTrainer) -> None:
        self.found, self.after = found, {}

    def on_step_end(self, args: object, state: object, control: object, **_: object) -> None:
        self.after[state.global_step] = everything(self.found)


def same(a: dict[str, object], b: dict[str, object]) -> bool:
    return a.keys() == b.keys() and all(
        torch.equal(value, b[name]) if isinstance(value, torch.Tensor) else value == b[name] for name, value in a.items()
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_step_changes_nothing(tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """The optimizer's moments, the learning rate, the queue and the learned temperature among it; the next step is taken."""
    found = trainer(tmp_path, steps=6)
    watch, run_log = Watch(found), RunLog(tmp_path / "log.jsonl", "align", -1)
    found.add_callback(watch)
    found.add_callback(run_log)
    with bad_steps(found, {3, 6}, KINDS[kind]):
        found.train()
    after = watch.after
    assert same(after[2], after[3])
    assert same(after[5], after[6])
    assert not same(after[3], after[4])
    assert found.skipped.count == 2
    found.check_result()
    assert "Step 3 is skipped: " in caplog.text
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 4, 5]
    assert [(line["step"], line["skipped_steps"]) for line in lines if line.get("event") == "skipped"] == [(3, 1), (6, 2)]
    header, *rows = [json.loads(line) for line in (tmp_path / "skipped" / "step-3.jsonl").read_text().splitlines()]
    assert (header["step"], header["rows"], len(rows)) == (3, 4, 4)
    names = {"nan": "loss_ntp is nan", "infinity": "loss_ntp is inf", "gradients": "the gradient norm is "}
    assert header["reason"].startswith(names[kind])


@pytest.mark.parametrize("cut", [3, pytest.param(4, marks=pytest.mark.slow)])
def test_a_run_that_is_resumed_after_bad_steps_is_exact(tmp_path: Path, cut: int) -> None:
    """Cut right after the bad step, and a step later."""
    whole = trainer(tmp_path / "whole")
    torch.manual_seed(3)
    with bad_steps(whole, {3, 6}):
        whole.train()
    first = trainer(tmp_path / "cut", save_steps=cut)
    first.add_callback(StopAfter(cut + 1))
    torch.manual_seed(3)
    with bad_steps(first, {3, 6}), pytest.raises(KeyboardInterrupt):
        first.train()
    torch.manual_seed(99)
    resumed = trainer(tmp_path / "cut", model=tiny_model(seed=8, attention_dropout=0.1))
    with bad_steps(resumed, {3, 6}):
        resumed.train(resume_from_checkpoint=str(tmp_path / "cut" / f"checkpoint-{cut}"))
    assert same(everything(whole), everything(resumed))
    assert resumed.skipped.count == whole.skipped.count == 2


def allowing(number: int | None) -> AlignSettings:
    chosen = SETTINGS.model_copy(deep=True)
    chosen.max_skipped_steps = number
    return chosen


def test_too_many_bad_steps_end_the_run_and_the_steps_before_are_saved(tmp_path: Path) -> None:
    found = trainer(tmp_path, settings=allowing(2), steps=9)
    words = r"loss_ntp is nan at step 8, and 2 steps before it .* lower learning rate .*float32.* without the rows in .*step-8"
    with bad_steps(found, {2, 5, 8}), pytest.raises(UserError, match=words):
        found.train()
    assert found.save_finished_steps() == tmp_path / "checkpoint-7" == last_checkpoint(tmp_path)
    more = trainer(tmp_path, settings=allowing(3), steps=9)
    with bad_steps(more, {2, 5, 8}):
        more.train(resume_from_checkpoint=str(tmp_path / "checkpoint-7"))
    assert more.skipped.count == 3
    none = trainer(tmp_path / "none", settings=allowing(0))
    with bad_steps(none, {1}), pytest.raises(UserError, match="at step 1: start again with a lower learning rate"):
        none.train()
    default = trainer(tmp_path / "default", settings=allowing(9))
    with bad_steps(default, set(range(20))), pytest.raises(UserError, match="at step 3, and 2 steps before it"):
        default.train()


def test_a_stage_of_bad_steps_makes_no_model(tmp_path: Path) -> None:
    found = trainer(tmp_path, steps=2)
    with bad_steps(found, {1, 2}):
        found.train()
    with pytest.raises(UserError, match=r"2 of 2 steps were skipped, and their rows are in .*skipped: start again with"):
        found.check_result()


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    """The checkpoint before stays the last one."""
    found = trainer(tmp_path, steps=4, save_steps=1)

    class Spoiled(StopAfter):
        def on_step_end(self, args: object, state: object, control: object, **_: object) -> None:
            if state.global_step == 3:
                found.model.model.norm.weight.data[1] = torch.inf

    found.add_callback(Spoiled(0))
    with pytest.raises(
        UserError, match=r"After step 3 there is NaN or infinity in model.norm.weight, so nothing is saved of it: .*"
    ):
        found.train()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-2"
    assert not (tmp_path / "checkpoint-3").exists()
    found.failed_in_step = True
    assert found.save_finished_steps() is None
    with pytest.raises(UserError, match="NaN or infinity"):
        found.check_result()


def test_a_dev_loss_that_is_not_finite_makes_no_model(tmp_path: Path) -> None:
    found = trainer(tmp_path, steps=1)
    found.add_callback(RunLog(tmp_path / "log.jsonl", "align", -1))
    found.train()
    with pytest.MonkeyPatch.context() as patch:
        inner = NextToken.of_micro_batch
        patch.setattr(NextToken, "of_micro_batch", lambda *args: inner(*args) * math.nan)
        found.evaluate()
    with pytest.raises(UserError, match="The dev loss is nan after step 1, so no model is saved"):
        found.check_result()
    text = (tmp_path / "log.jsonl").read_text()
    assert '"dev_loss": null' in text
    assert "NaN" not in text


@pytest.mark.parametrize("rate", [1e3, 1e30])
def test_a_learned_temperature_stays_finite_and_positive(tmp_path: Path, rate: float) -> None:
    chosen = SETTINGS.model_copy(deep=True)
    chosen.matching.weight, chosen.max_skipped_steps = 0.0, 9
    found = trainer(tmp_path, settings=chosen, steps=3)
    found.create_optimizer()
    for group in found.optimizer.param_groups[:-1]:
        group["lr"] = group["initial_lr"] = 0.0
    found.optimizer.param_groups[-1]["lr"] = rate
    contrastive = next(loss for loss in found.align_step.losses if loss.name == "contrastive")
    for sign in (1.0, -1.0):
        contrastive.log_temperature.grad = torch.tensor(sign)
        found.optimizer.step()
        assert 0.0009 < contrastive.temperature().item() < 101


def test_the_temperature_range_holds_its_start(tmp_path: Path) -> None:
    for start in (1e-5, 1e4):
        chosen = SETTINGS.model_copy(deep=True)
        chosen.contrastive.temperature = start
        contrastive = trainer(tmp_path, settings=chosen).align_step.losses[1]
        contrastive.after_update()
        assert contrastive.temperature().item() == pytest.approx(start)


class ScaledLoss:
    """fp16's loss scaling, which a trainer has on a GPU alone, on the CPU."""

    def __init__(self, patch: pytest.MonkeyPatch, scale: float) -> None:
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        patch.setattr(Accelerator, "mixed_precision", property(lambda _: "fp16"))
        self.patch = patch

    def of(self, found: AlignXTrainer) -> None:
        self.patch.setattr(found.accelerator, "scaler", self.scaler)
        self.patch.setattr(found.accelerator, "native_amp", True)


@pytest.mark.parametrize(
    ("scale", "kind", "counted", "scale_after"),
    [(64.0, "gradients", 0, 32.0), (1.0, "gradients", 1, 0.5), (64.0, "nan", 1, 32.0)],
)
def test_loss_scaling_skips_its_own_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scale: float, kind: str, counted: int, scale_after: float
) -> None:
    """Gradients that overflow by a scale above 1 are no bad step; either way no weight changes."""
    scaled = ScaledLoss(monkeypatch, scale)
    found = trainer(tmp_path, steps=3)
    scaled.of(found)
    watch = Watch(found)
    found.add_callback(watch)
    with bad_steps(found, {2}, KINDS[kind]):
        found.train()
    assert found.skipped.count == counted
    assert scaled.scaler.get_scale() == scale_after
    if counted:
        assert same(watch.after[1], watch.after[2])
    for name, value in weights(found).items():
        assert torch.equal(watch.after[1][name], watch.after[2][name]), name
        assert value.isfinite().all()
    assert not same(watch.after[2], watch.after[3])


# Whole runs.


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("finished")
    train(settings(folder, "run"), resume=False)
    return folder


def spoil_file(file: Path, value: float) -> str:
    """Put a value into a tensor of a file; returns the tensor's name."""
    tensors = load_file(file)
    name = sorted(tensors)[-1]
    tensors[name].view(-1)[3] = value
    file.unlink()
    save_file(tensors, file, metadata={"format": "pt"})
    return name


@pytest.mark.parametrize(
    ("tuning", "value"),
    [
        ("full", math.nan),
        ("lora", -math.inf),
        pytest.param("lora", math.nan, marks=pytest.mark.slow),
        pytest.param("full", math.inf, marks=pytest.mark.slow),
    ],
)
def test_a_base_that_is_not_finite_is_refused_before_any_work(finished: Path, tmp_path: Path, tuning: str, value: float) -> None:
    shutil.copytree(finished / "run" / "base", tmp_path / "base")
    name = spoil_file(tmp_path / "base" / "model.safetensors", value)
    chosen = settings(tmp_path, "run", path=str(tmp_path / "base"), tuning=tuning)
    with pytest.raises(UserError, match=rf"The weights of {tmp_path / 'base'} are not finite: .* in {name}\."):
        train(chosen, resume=False)
    assert not (tmp_path / "run").exists()


def test_a_diverging_run_ends_in_one_sentence_and_publishes_nothing(tmp_path: Path) -> None:
    chosen: Settings = settings(tmp_path, "run")
    chosen.align.learning_rate, chosen.align.warmup_steps, chosen.align.save_every = 1e30, 0, 1
    with pytest.raises(UserError, match="lower learning rate"):
        train(chosen, resume=False)
    run = tmp_path / "run"
    assert not (run / "model").exists()
    assert not (run / "align" / "model").exists()
    for file in run.rglob("*.safetensors"):
        assert not non_finite(load_file(file).items()), file
    for file in [*run.rglob("*.json"), *run.rglob("*.jsonl")]:
        assert "NaN" not in file.read_text(), file
        assert "Infinity" not in file.read_text(), file


def test_the_losses_of_a_finished_run_are_finite(finished: Path) -> None:
    checkpoint = last_checkpoint(finished / "run" / "align")
    assert checkpoint is not None
    assert not non_finite(load_file(checkpoint / LOSSES_FILE).items())
    assert json.loads((finished / "run" / "align" / "stage.json").read_text())["skipped_steps"] == 0


def test_non_finite_tensors_are_found_in_every_format() -> None:
    for dtype in (torch.float32, torch.float64, torch.bfloat16, torch.float16):
        good, bad = torch.randn(3, 5).to(dtype), torch.zeros(2, 2).to(dtype)
        bad[1, 0] = math.nan
        huge = torch.full((2,), torch.finfo(dtype).max, dtype=dtype)
        named = {
            "good": good,
            "bad": bad,
            "empty": good[:0],
            "whole": torch.tensor([1]),
            "huge": huge,
            "inf": bad.nan_to_num(math.inf),
        }
        assert non_finite(named.items()) == ["bad", "inf"]
    assert non_finite([]) == []
    check_finite_files("no/such-model")
    assert ModelSettings().path == "builtin:tiny"
