"""Several processes train what one trains: gathered negatives, summed gradients, and the ways in which a run may end."""

import tempfile

import datasets
import pytest
import torch
from support.processes import run_together
from support.tiny_models import random_rows, tiny_model
from transformers import TrainingArguments

from alignx_fast.config import AlignSettings, InstructSettings, LoraSettings, StageSettings
from alignx_fast.models.adapters import add_adapters
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
FAST = ["ntp", "own", "apart", "adapters"]


class Opening:
    """A tokenizer, as far as its opening token is asked for."""

    bos_token_id = cls_token_id = eos_token_id = sep_token_id = 1

    def save_pretrained(self, folder: str) -> None:
        pass


def trained(names: list[str]) -> dict[str, dict[str, torch.Tensor]]:
    """Weights and log of each case after its steps."""
    return {name: train_one(*CASES[name], adapters=name == "adapters") for name in names}


def train_one(settings: StageSettings, tokens: int, optimizer: str, *, adapters: bool) -> dict[str, torch.Tensor]:
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
            settings=settings,
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


def test_two_processes_train_what_one_does() -> None:
    assert_same(2, FAST)


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_processes_train_what_one_does(count: int) -> None:
    assert_same(count, list(CASES))
