"""What a step costs, by count."""

import json
from pathlib import Path

import pytest
import torch
from support.runs import settings
from support.tiny_models import tiny_model
from torch.utils.flop_counter import FlopCounterMode

from alignx_fast.config import AlignSettings, ModelSettings
from alignx_fast.data.packing import pack
from alignx_fast.losses.build import build_losses, model_shape
from alignx_fast.models.adapters import add_adapters
from alignx_fast.models.setup import set_up
from alignx_fast.training.run import train
from alignx_fast.training.step import AlignStep
from alignx_fast.training.work import Prices


def example(length: int, meaning: int) -> dict:
    """A row of random tokens with two short sentences."""
    ids = torch.randint(5, 90, (length,)).tolist()
    spans = {"source": [1, 4], "target": [5, 8], "prompt_length": 5, "src_lang": 0, "tgt_lang": 1}
    return {"input_ids": ids, "meaning": meaning, **spans}


@pytest.mark.parametrize("tuning", ["full", "lora"])
@pytest.mark.parametrize("apart", [0.0, 1.0])
@pytest.mark.parametrize("tokens", [40, 1000], ids=["cached", "whole"])
def test_operations_are_those_that_torch_counts(tuning: str, apart: float, tokens: int) -> None:
    """Of the linear layers: torch's counter sees attention and the losses too, which are small beside them."""
    torch.manual_seed(0)
    model = tiny_model(hidden_size=128, intermediate_size=512)
    align = AlignSettings(pairs_per_step=6)
    align.apart.weight, align.matching.weight = apart, 0.0
    model_settings = ModelSettings(tuning=tuning)
    set_up(model, model_settings)
    if tuning == "lora":
        model = add_adapters(model, model_settings.lora)
    losses = build_losses(align, model_shape(model, 2), seed=0)
    step = AlignStep(model, losses, autocast=torch.enable_grad, opening_token=1)
    batches = pack([example(12 + i, i) for i in range(6)], tokens, train_on_prompt=True)
    with FlopCounterMode(display=False) as counter:
        step(batches, torch.Tensor.backward)
    assert Prices.of(model).flops(step.work) == pytest.approx(counter.get_total_flops(), rel=0.1)


def test_the_log_says_what_a_stage_cost(tmp_path: Path) -> None:
    """Tokens, seconds and operations of every line add up to those of the stage."""
    chosen = settings(tmp_path, "run")
    chosen.align.log_every = 3  # of four steps: the last line holds one
    train(chosen, resume=False)
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    lines = [line for line in lines if "event" not in line]
    assert [line["step"] for line in lines] == [3, 4]
    assert all(line["tokens"] > 0 and line["seconds"] > 0 and line["flops"] > 1e6 for line in lines)
