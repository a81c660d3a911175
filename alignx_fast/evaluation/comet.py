"""COMET by its own command, which needs older libraries than ours and so an environment of its own."""

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from alignx_fast.errors import UserError, first_line
from alignx_fast.evaluation.results import TranslatedSentence
from alignx_fast.hardware import on_gpu

COMMAND = "comet-score"


def find_comet(checkpoint: str) -> str:
    """Path of the command.

    Raises:
        UserError: the command is not installed, or there is no such checkpoint.
    """
    if not (checkpoint.endswith(".ckpt") and Path(checkpoint).is_file()):
        raise UserError(f"There is no COMET checkpoint {checkpoint}: name a .ckpt file with evaluation.comet_model.")
    command = shutil.which(COMMAND)
    if command is None:
        raise UserError(
            f"evaluation.comet_model needs the command {COMMAND}: `uv tool install unbabel-comet`, or leave it unset."
        )
    return command


def comet_scores(checkpoint: str, sentences: Sequence[TranslatedSentence]) -> list[float]:
    """COMET's score of every translation (Rei et al. 2020); nothing is downloaded.

    Raises:
        UserError: as `find_comet`, or the command fails.
    """
    command = find_comet(checkpoint)
    with tempfile.TemporaryDirectory() as folder:
        files = {name: Path(folder) / name for name in ("source", "hypothesis", "reference")}
        for name, file in files.items():
            lines = (" ".join(str(getattr(sentence, name)).splitlines()) for sentence in sentences)
            file.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        output = Path(folder) / "scores.json"
        texts = ["-s", str(files["source"]), "-t", str(files["hypothesis"]), "-r", str(files["reference"])]
        device = ["--gpus", "1" if on_gpu() else "0"]
        run = subprocess.run(
            [command, *texts, "--model", checkpoint, *device, "--quiet", "--only_system", "--to_json", str(output)],
            env=os.environ | {"HF_HUB_OFFLINE": "1"},
            capture_output=True,
            text=True,
        )
        if run.returncode != 0 or not output.exists():
            reason = (run.stderr.strip().splitlines() or [f"exit code {run.returncode}"])[-1]
            raise UserError(f"{COMMAND} failed with {checkpoint}: {first_line(Exception(reason))}")
        (scored,) = json.loads(output.read_text(encoding="utf-8")).values()
    return [float(sentence["COMET"]) for sentence in scored]
