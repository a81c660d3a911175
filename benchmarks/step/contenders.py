"""Every contender as a Trainer over the same rows; two epochs of one optimizer step each, of which the second is measured."""

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import torch
from peft import prepare_model_for_kbit_training
from torch import nn
from transformers import Trainer, TrainingArguments

from alignx_fast.config import AlignSettings
from alignx_fast.data.spans import Example
from alignx_fast.hardware import product_dtype
from alignx_fast.models.tiny import build_tokenizer
from alignx_fast.training.trainer import AlignXTrainer
from benchmarks.step.cases import StepCase, config_of
from benchmarks.step.expanded import ExpandedTrainer
from benchmarks.step.models import our_model, random_model, with_adapters
from benchmarks.step.names import CACHED, EXPANDED, MICRO, NTP, STOCK, TRL
from benchmarks.step.padding import padded

STEPS = 2


def obstacle(contender: str) -> str | None:
    """Why a contender cannot run here, or None."""
    if contender == TRL and importlib.util.find_spec("trl") is None:
        return "trl is not installed"
    return None


def build(case: StepCase, contender: str, rows: list[Example], folder: Path) -> Trainer:
    """The contender's Trainer with its model in place."""
    return BUILDERS[contender](case, contender, rows, folder)


def _arguments(case: StepCase, folder: Path, *, micro_batches: int, rows_per_micro_batch: int) -> dict[str, Any]:
    """What all Trainers share."""
    on_gpu = torch.cuda.is_available()
    products = product_dtype(case.model_settings())
    return {
        "output_dir": str(folder),
        "max_steps": STEPS,
        "per_device_train_batch_size": rows_per_micro_batch,
        "gradient_accumulation_steps": micro_batches,
        "learning_rate": 1e-4,
        "optim": "paged_adamw_8bit" if case.tuning == "qlora" and on_gpu else "adamw_torch_fused",
        "bf16": products == torch.bfloat16,
        "use_cpu": not on_gpu,
        "save_strategy": "no",
        "logging_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
    }


def _alignx(case: StepCase, contender: str, rows: list[Example], folder: Path) -> Trainer:
    settings = case.stage_settings(contender)
    config = config_of(case)
    return AlignXTrainer(
        model=our_model(config, case.model_settings()),
        args=TrainingArguments(
            **_arguments(case, folder, micro_batches=1, rows_per_micro_batch=case.rows), remove_unused_columns=False
        ),
        settings=settings,
        train_dataset=datasets.Dataset.from_list(rows),
        align_layer=config.num_hidden_layers // 2 if isinstance(settings, AlignSettings) else None,
        tokens_per_micro_batch=case.tokens_per_micro_batch,
    )


def _padded_arguments(case: StepCase, folder: Path) -> TrainingArguments:
    micro_batches = -(-case.rows // case.rows_per_micro_batch)
    return TrainingArguments(
        **_arguments(case, folder, micro_batches=micro_batches, rows_per_micro_batch=case.rows_per_micro_batch),
        activation_checkpointing=case.checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
        remove_unused_columns=False,
    )


def _expanded(case: StepCase, contender: str, rows: list[Example], folder: Path) -> Trainer:
    settings = case.stage_settings(contender)
    assert isinstance(settings, AlignSettings)
    config = config_of(case)
    model = with_adapters(random_model(config, case.model_settings(), attention_name="sdpa"), case.model_settings())
    return ExpandedTrainer(
        model=model,
        args=_padded_arguments(case, folder),
        train_dataset=datasets.Dataset.from_list(rows),
        data_collator=lambda examples: padded(examples, left=True),
        settings=settings,
        align_layer=config.num_hidden_layers // 2,
        hidden_size=config.hidden_size,
    )


def _stock(case: StepCase, contender: str, rows: list[Example], folder: Path) -> Trainer:
    """As the libraries' own guides have it, the preparation of 4-bit models included."""
    model: nn.Module = random_model(config_of(case), case.model_settings(), attention_name="sdpa")
    if case.tuning == "qlora":
        model = prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=case.checkpointing, gradient_checkpointing_kwargs={"use_reentrant": False}
        )
    names = ("input_ids", "attention_mask", "labels")

    def collate(examples: list[Example]) -> dict[str, torch.Tensor]:
        batch = padded(examples, left=False)
        return {name: batch[name] for name in names}

    return Trainer(
        model=with_adapters(model, case.model_settings()),
        args=_padded_arguments(case, folder),
        train_dataset=datasets.Dataset.from_list(rows),
        data_collator=collate,
    )


def _trl(case: StepCase, contender: str, rows: list[Example], folder: Path) -> Trainer:
    """Best-fit packing without padding, liger kernels on a GPU, FlashAttention where it is installed."""
    from trl import SFTConfig, SFTTrainer, pack_dataset

    tokens = datasets.Dataset.from_list([{"input_ids": row["input_ids"], "labels": row["input_ids"]} for row in rows])
    micro_batches = len(pack_dataset(tokens, case.tokens_per_micro_batch, "bfd"))
    on_gpu = torch.cuda.is_available()
    flash = on_gpu and importlib.util.find_spec("flash_attn") is not None
    model = random_model(config_of(case), case.model_settings(), attention_name="flash_attention_2" if flash else "sdpa")
    arguments = SFTConfig(
        **_arguments(case, folder, micro_batches=micro_batches, rows_per_micro_batch=1),
        packing=True,
        max_length=case.tokens_per_micro_batch,
        use_liger_kernel=on_gpu,
        activation_checkpointing=case.checkpointing,
        activation_checkpointing_kwargs={"use_reentrant": False},
    )
    trainer = SFTTrainer(
        model=with_adapters(model, case.model_settings()),
        args=arguments,
        train_dataset=tokens,
        processing_class=build_tokenizer(["a b c"], 300),
    )
    if sum(map(len, trainer.train_dataset["input_ids"])) != sum(len(row["input_ids"]) for row in rows):
        raise RuntimeError("TRL's packing dropped tokens: its step would not see the same rows.")
    return trainer


BUILDERS: dict[str, Callable[[StepCase, str, list[Example], Path], Trainer]] = {
    CACHED: _alignx,
    MICRO: _alignx,
    NTP: _alignx,
    EXPANDED: _expanded,
    STOCK: _stock,
    TRL: _trl,
}
