"""A run is resumed on other data or weights: every change is noticed, however small."""

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from support.killed import Whole

from alignx_fast.config import Settings, load_settings
from alignx_fast.errors import UserError
from alignx_fast.training.run import train

Rows = list[dict[str, str]]


def other_text(rows: Rows, rng: random.Random) -> None:
    row = rng.choice(rows)
    side = rng.choice(("src", "tgt"))
    row[side] = row[side].replace(row[side][rng.randrange(3)], "x", 1)


def lost_row(rows: Rows, rng: random.Random) -> None:
    rows.pop(rng.randrange(len(rows)))


def new_row(rows: Rows, rng: random.Random) -> None:
    rows.insert(rng.randrange(len(rows)), rows[0] | {"src": "a new bird", "tgt": "ein neuer Vogel"})


def other_language(rows: Rows, rng: random.Random) -> None:
    rng.choice(rows)["tgt_lang"] = "nl"


def other_order(rows: Rows, rng: random.Random) -> None:
    rng.shuffle(rows)


DATA: list[Callable[[Rows, random.Random], None]] = [other_text, lost_row, new_row, other_language, other_order]
CASES = [
    *(("data", change, seed) for change in DATA for seed in range(2)),
    *(("weights", None, seed) for seed in range(6)),
    *(("stage", None, seed) for seed in range(2)),
    ("config.json", None, 0),
    ("tokenizer.json", None, 0),
]
"""Twenty changes: ten of the data, six of one weight of the base model, two of one that a finished stage left, two of its other files."""


@pytest.fixture(scope="module")
def on_a_folder(whole: Whole, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose base model is a folder of the user's."""
    folder = tmp_path_factory.mktemp("changes")
    shutil.copytree(whole.folder / "run" / "base", folder / "model")
    shutil.copyfile(whole.folder / "pairs.jsonl", folder / "pairs.jsonl")
    train(chosen(whole, folder), resume=False)
    return folder


def chosen(whole: Whole, folder: Path) -> Settings:
    return load_settings(
        whole.settings,
        {
            "output": str(folder / "run"),
            "model.path": str(folder / "model"),
            "data.parallel": [{"path": str(folder / "pairs.jsonl")}],
        },
    )


def change_one_weight(file: Path, rng: random.Random) -> None:
    tensors = load_file(file)
    values = tensors[rng.choice(sorted(tensors))].view(-1)
    values[rng.randrange(len(values))] += 1e-4
    file.unlink()  # it may have a second name, which must keep its content
    save_file(tensors, file, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("kind", "change", "seed"), [pytest.param(*case, marks=[pytest.mark.slow] if case[2] else []) for case in CASES]
)
def test_a_change_is_noticed(
    kind: str, change: Callable[[Rows, random.Random], None] | None, seed: int, whole: Whole, on_a_folder: Path, tmp_path: Path
) -> None:
    rng, folder = random.Random(seed), tmp_path / "changed"
    shutil.copytree(on_a_folder, folder)
    if change is not None:
        rows = [json.loads(line) for line in (folder / "pairs.jsonl").read_text().splitlines()]
        change(rows, rng)
        (folder / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "weights":
        change_one_weight(folder / "model" / "model.safetensors", rng)
    elif kind == "stage":
        change_one_weight(folder / "run" / "align" / "model" / "model.safetensors", rng)
    else:
        file = folder / "model" / kind
        file.write_text(file.read_text().rstrip() + "\n ")
    words = {"data": "data of stage align", "stage": "model of stage align"}.get(kind, "base model")
    with pytest.raises(UserError, match=f"(?i){words}.* differs? from what"):
        train(chosen(whole, folder), resume=True)
