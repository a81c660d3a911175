"""Runs of a few steps that are killed or damaged, and what an uninterrupted one leaves."""

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import yaml

from alignx_fast.contents import sha256
from support.commands import Commands
from support.runs import settings

KILLED = -9
WEIGHTS = Path("model") / "model.safetensors"

AT_FILE_OPERATION = """
import os, signal, sys
state = [0]
counter = os.open({counter!r}, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
def hook(event, args):
    if event not in ("open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.truncate"):
        return
    if not str(args[0]).startswith({run!r}) or (event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR)):
        return
    state[0] += 1
    os.pwrite(counter, str(state[0]).encode(), 0)
    if state[0] == {at}:
        os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
"""
"""Kills the process before its `at`-th operation that writes within the run folder."""


@dataclass(frozen=True)
class Whole:
    """A run that nothing has interrupted."""

    folder: Path
    """Holds the settings `s.yaml`, the data, its cache, and the run `run`."""
    seconds: float
    operations: int
    """File operations that wrote within the run folder."""

    @property
    def settings(self) -> Path:
        return self.folder / "s.yaml"

    @property
    def weights(self) -> str:
        return sha256(self.folder / "run" / WEIGHTS)

    def cut(self, target: Path) -> Path:
        """A copy of the run as a kill would have left it after step 3 of 4, with the checkpoints of steps 2 and 3."""
        shutil.copytree(self.folder / "run", target)
        for done in ("model", "align/model", "align/checkpoint-4"):
            shutil.rmtree(target / done)
        (target / "report.html").unlink()
        (target / "align" / "stage.json").unlink()
        return target


def uninterrupted(commands: Commands, folder: Path) -> Whole:
    """Train the run of four steps, with a checkpoint after each."""
    chosen = settings(folder, "run")
    chosen.align.save_every, chosen.align.keep_checkpoints, chosen.align.evaluate_every = 1, 3, 4
    (folder / "s.yaml").write_text(yaml.safe_dump(chosen.model_dump(mode="json")))
    commands.run(
        "train", folder / "s.yaml", "--output", folder / "first"
    )  # fills the cache, so that the next one takes its usual time
    began = time.monotonic()
    ended = commands.run("train", folder / "s.yaml", first=at_operation(0, folder / "run"))
    assert ended.code == 0, ended.err
    return Whole(folder, time.monotonic() - began, int((folder / "run.count").read_text()))


def at_operation(number: int, run: Path) -> str:
    """Code that kills the process at a file operation; 0 only counts them, into a file beside the run folder."""
    return AT_FILE_OPERATION.format(counter=f"{run}.count", run=str(run), at=number)
