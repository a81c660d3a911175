"""Every recipe loads, opens with its command, and needs what its opening says, by plan and offline."""

import re
import shlex

import pytest

from alignx_fast import recipes
from alignx_fast.cli import overrides_from
from alignx_fast.config import load_settings
from alignx_fast.memory.gpus import GIB
from alignx_fast.memory.plan import plan

CARD = re.compile(
    r"^# +(\d+) GB +(\d+\.\d) GiB planned +(?:alignx-fast|torchrun --nproc-per-node \d+ -m alignx_fast) train (\S+)(.*)$",
    re.MULTILINE,
)
CARDS = [
    pytest.param(name, *card, id=f"{name}-{card[0]}")
    for name in recipes.names()
    for card in CARD.findall(recipes.find(name).read_text(encoding="utf-8"))
]


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("name", recipes.names())
def test_a_recipe_loads_and_opens_with_its_command(name: str) -> None:
    load_settings(recipes.find(name))
    opening = recipes.find(name).read_text(encoding="utf-8").split("\nname:")[0]
    assert opening.splitlines()[0] == recipes.FIRST_LINE
    assert recipes.purpose(name) == opening.splitlines()[1].removeprefix("# ").rstrip(":")
    assert all(line.startswith("#") for line in opening.splitlines())
    assert re.search("alignx[-_]fast train", opening)
    assert name == "quickstart" or CARD.search(opening)


@pytest.mark.parametrize(("name", "gib", "figure", "recipe", "options"), CARDS)
def test_planned_memory_is_what_the_opening_says(name: str, gib: str, figure: str, recipe: str, options: str) -> None:
    assert recipe == name
    settings = load_settings(recipes.find(name), overrides_from(tuple(shlex.split(options))))
    plans = [plan(settings, gpu_bytes=int(gib) * GIB, stage=stage) for stage in settings.stages]
    assert all(found.fits for found in plans)
    assert max(found.total for found in plans) / GIB == pytest.approx(float(figure), abs=0.051)


def test_the_reference_recipe_has_the_papers_settings() -> None:
    settings = load_settings(recipes.find("reference"))
    align, instruct = settings.align, settings.instruct
    assert (settings.model.tuning, settings.data.max_length, settings.data.template) == ("full", 512, "alpaca")
    assert (align.contrastive.weight, align.contrastive.temperature, align.matching.weight) == (0.15, 0.1, 0.4)
    assert (align.contrastive.negatives, align.matching.scope, align.matching.width) == ("micro_batch", "micro_batch", 128)
    for stage, rows in ((align, align.pairs_per_step), (instruct, instruct.rows_per_step)):
        assert (rows, stage.learning_rate, stage.epochs, stage.warmup_steps) == (128, 2e-6, 2.0, 100)
