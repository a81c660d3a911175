"""Training on a real GPU: QLoRA steps with everything that only runs there, resuming them, and a real lack of memory."""

import gc
import json
import math
import shutil
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import load_file
from support.runs import settings
from support.tiny_models import random_rows, tiny_model
from torch.utils._pytree import tree_leaves
from transformers import TrainingArguments

from alignx_fast.config import AlignSettings
from alignx_fast.training.run import train
from alignx_fast.training.step import AlignStep
from alignx_fast.training.trainer import AlignXTrainer

pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")]

ADAPTER, HEADS = "adapter_model.safetensors", "alignment_heads.safetensors"


def test_qlora_steps_resume_where_they_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NF4, recomputed layers, dropout, cached gradients over several micro-batches, a paged 8-bit optimizer."""
    chosen = settings(
        tmp_path,
        "run",
        tuning="qlora",
        lora={"rank": 16, "dropout": 0.1},
        gradient_checkpointing=True,
        tiny_width=256,
    )
    chosen.align.optimizer, chosen.align.max_steps, chosen.align.log_every = "paged_adamw_8bit", 3, 1
    chosen.align.save_every, chosen.align.keep_checkpoints = 1, 3
    chosen.align.contrastive.negatives, chosen.align.tokens_per_micro_batch = "step", 200
    chosen.align.contrastive.learn_temperature = True
    micro_batches = []
    inner = AlignStep.__call__

    def counted(self: AlignStep, batches: Any, *args: Any) -> Any:
        micro_batches.append(len(batches))
        return inner(self, batches, *args)

    monkeypatch.setattr(AlignStep, "__call__", counted)
    train(chosen, resume=False)
    assert len(micro_batches) == 3
    assert min(micro_batches) >= 2
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    losses = [line[name] for line in lines for name in ("loss_ntp", "loss_contrastive", "loss_matching") if name in line]
    assert len(losses) == 9
    assert all(map(math.isfinite, losses))
    folder = tmp_path / "run" / "align"
    saved = tree_leaves(torch.load(folder / "checkpoint-2" / "optimizer.pt"))
    assert any(leaf.dtype == torch.uint8 for leaf in saved if isinstance(leaf, torch.Tensor)), "no moment is in 8 bits"

    names = ("model/" + ADAPTER, *(f"checkpoint-{step}/{file}" for step in (1, 2, 3) for file in (ADAPTER, HEADS)))
    whole = {name: load_file(folder / name) for name in names}
    for name, tensor in whole["checkpoint-1/" + ADAPTER].items():
        assert "lora_A" in name or tensor.abs().max() > 0, f"{name} got no gradient"  # B starts from zero

    shutil.rmtree(folder / "checkpoint-3")
    shutil.rmtree(folder / "model")
    shutil.rmtree(tmp_path / "run" / "model")
    train(chosen, resume=True)
    assert len(micro_batches) == 4, "not resumed from step 2"
    for file in (ADAPTER, HEADS):
        before, expected = whole[f"checkpoint-2/{file}"], whole[f"checkpoint-3/{file}"]
        assert_same_step(before, expected, load_file(folder / "checkpoint-3" / file))


def assert_same_step(before: dict, expected: dict, found: dict) -> None:
    """The same step up to the order in which a GPU adds: Adam turns a gradient of rounding errors into a whole step."""
    assert before.keys() == expected.keys() == found.keys()
    for name, start in before.items():
        step = (expected[name].float() - start.float()).norm()
        assert step > 0, f"{name} did not move"
        assert (found[name].float() - expected[name].float()).norm() <= 0.1 * step, name


ROOM = 1 << 30
PAIRS = AlignSettings.model_validate(
    {"pairs_per_step": 3000, "contrastive": {"negatives": "step"}, "matching": {"scope": "step", "width": 8}}
)


def step_of(folder: Path) -> AlignXTrainer:
    """A step of 40,000 tokens that wants several times `ROOM` at once."""
    model = tiny_model(hidden_size=256, intermediate_size=1024, num_hidden_layers=4)
    return AlignXTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder),
            max_steps=1,
            learning_rate=0.0,
            logging_steps=1,
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            save_strategy="no",
        ),
        settings=PAIRS,
        train_dataset=datasets.Dataset.from_list(random_rows(PAIRS.pairs_per_step)),
        align_layer=2,
        tokens_per_micro_batch=1 << 16,
    )


def test_a_real_lack_of_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The step ends in smaller pieces, with the loss of one that had memory, and what failed holds nothing back."""
    plenty = step_of(tmp_path)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    expected = plenty.train().training_loss
    assert plenty.tokens_per_micro_batch == 1 << 16
    assert torch.cuda.max_memory_allocated() - before > 2 * ROOM, "the step is too small for this test"
    del plenty
    gc.collect()  # a Trainer holds itself; what it frees later must not hide what a failure keeps

    found = step_of(tmp_path)
    empty_cache, after_failure = torch.cuda.empty_cache, []
    empty_cache()
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: (after_failure.append(torch.cuda.memory_allocated()), empty_cache()))
    total = torch.cuda.get_device_properties(0).total_memory
    before = torch.cuda.memory_allocated()
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + ROOM) / total)
    try:
        loss = found.train().training_loss
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert found.tokens_per_micro_batch <= 1 << 15
    assert after_failure
    assert max(after_failure) - before < ROOM / 16
    assert loss == pytest.approx(expected, rel=1e-4)
