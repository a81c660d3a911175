"""Checkpoints and records that are damaged at random: each is named or restored, and the run ends with the same weights."""

import random
from pathlib import Path

import pytest
from support.commands import Commands
from support.killed import WEIGHTS, Whole

from alignx_fast.contents import sha256

SHORT, LONG = 2, 60
SEEDS = [*range(SHORT), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(SHORT, LONG))]
CHECKPOINT = (
    "alignment_heads.safetensors",
    "config.json",
    "files.json",
    "model.safetensors",
    "optimizer.pt",
    "rng_state.pth",
    "scheduler.pt",
    "trainer_state.json",
    "training_args.bin",
)
RECORDS = ("settings.yaml", "environment.json", "inputs.json", "log.jsonl", "data/align.json", "base/model.safetensors")


def damaged(content: bytes, kind: str, rng: random.Random) -> bytes:
    place = rng.randrange(max(1, len(content)))
    if kind == "cut":
        return content[:place]
    if kind == "a bit flipped":
        return content[:place] + bytes([content[place] ^ 1 << rng.randrange(8)]) + content[place + 1 :]
    if kind == "zeros from a place on":
        return content[:place] + bytes(len(content) - place)
    return {"empty": b"", "random": rng.randbytes(len(content)), "longer": content + rng.randbytes(64)}[kind]


@pytest.mark.parametrize("seed", SEEDS)
def test_damage_is_named_and_survived(seed: int, commands: Commands, whole: Whole, tmp_path: Path) -> None:
    rng = random.Random(seed)
    run = whole.cut(tmp_path / "run")
    of_checkpoint = seed % 2 == 0
    file = run / "align" / "checkpoint-3" / rng.choice(CHECKPOINT) if of_checkpoint else run / rng.choice(RECORDS)
    kind = rng.choice(("cut", "a bit flipped", "zeros from a place on", "empty", "random", "longer", "missing"))
    file.unlink() if kind == "missing" else file.write_bytes(damaged(file.read_bytes(), kind, rng))
    what = f"{file.relative_to(run)}: {kind}"
    command = ("train", whole.settings, "--output", run, "--resume")
    ended = commands.run(*command)
    if not of_checkpoint and ended.code == 2:  # a record that can still be read, and says something else
        assert ended.one_sentence, (what, ended.err)
        assert "--accept-changes" in ended.err, what
        ended = commands.run(*command, "--accept-changes")
    assert ended.code == 0, (what, ended.err)
    assert sha256(run / WEIGHTS) == whole.weights, what
    if of_checkpoint and (file.name, kind) != (
        "files.json",
        "missing",
    ):  # then it looks like one of an older version, and all is whole
        assert "checkpoint-3 is passed over: " in ended.out, what
