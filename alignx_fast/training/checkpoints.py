"""Checkpoints of a stage: which of them are whole, and what the losses add to them."""

import hashlib
import logging
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from alignx_fast.errors import UserError
from alignx_fast.files import read_object, sync_tree, write_json
from alignx_fast.losses.base import Loss

log = logging.getLogger(__name__)

LOSSES_FILE = "alignment_heads.safetensors"
"""Parameters and memory of the losses, beside the model."""

STATE_FILE = "trainer_state.json"
RECORD_FILE = "files.json"
"""Size and hash of every other file of a checkpoint; empty while it is being written."""
UNFINISHED = "it was not written to its end"
REMOVED = "removed-"
CHECKPOINT = re.compile("checkpoint-(0|[1-9][0-9]*)")


def save_losses(losses: Iterable[Loss], folder: Path) -> None:
    """Write what a resumed run needs of the losses; nothing where they have no tensors."""
    tensors: dict[str, torch.Tensor] = {}
    for loss in losses:
        tensors |= loss.checkpoint()
    if tensors:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, folder / LOSSES_FILE)


def load_losses(losses: Iterable[Loss], folder: Path) -> None:
    """Take back what `save_losses` wrote.

    Raises:
        UserError: the file lacks a tensor of a loss.
    """
    file = folder / LOSSES_FILE
    tensors = load_file(file) if file.exists() else {}
    for loss in losses:
        try:
            loss.restore(tensors)
        except KeyError as error:
            raise UserError(
                f"{file} does not hold {error.args[0]}, so this checkpoint was not made with these losses: start again in another "
                "folder with --output."
            ) from None


def last_checkpoint(folder: Path, *, set_aside: bool = False) -> Path | None:
    """The newest checkpoint of a stage that is whole. What a kill left half-written, or a disk damaged, is named and passed over.

    Args:
        set_aside: also rename the damaged ones, so that they neither count as checkpoints nor are written over.
    """
    for step in sorted(_steps(folder), reverse=True):
        checkpoint = folder / f"checkpoint-{step}"
        reason = damage(checkpoint)
        if reason is None:
            return checkpoint
        log.warning("%s is passed over: %s.", checkpoint, reason)
        if set_aside and reason != UNFINISHED:
            name = next(name for n in range(1, 1000) if not (folder / (name := f"damaged-{n}-{checkpoint.name}")).exists())
            checkpoint.rename(folder / name)
            log.warning("It is kept as %s, and of no further use here.", folder / name)
    return None


def damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, as the end of a sentence; None where it is whole.

    One of an older version has no record of its files: it is whole when the Trainer's state, which is written last, can be read.
    """
    record, state = checkpoint / RECORD_FILE, read_object(checkpoint / STATE_FILE)
    step = checkpoint.name.removeprefix("checkpoint-")
    if state is not None and str(state.get("global_step", step)) != step:
        return f"it is one of step {state['global_step']} under another name"
    if not record.exists():
        return None if state is not None else UNFINISHED
    content = read_object(record)
    if content is None:
        return f"its {RECORD_FILE} cannot be read"
    if not content:
        return UNFINISHED
    for name, written in content.items():
        file = checkpoint / name
        if not isinstance(written, dict):
            return f"its {RECORD_FILE} cannot be read"
        if not file.is_file():
            return f"its {name} is missing"
        if file.stat().st_size != written.get("bytes"):
            return f"its {name} has {file.stat().st_size} bytes instead of {written.get('bytes')}"
        try:
            if sha256(file) != written.get("sha256"):
                return f"the content of its {name} has changed since it was saved"
        except OSError as error:
            return f"its {name} cannot be read ({error.strerror})"
    return None


def begin_checkpoint(checkpoint: Path) -> None:
    """Mark a checkpoint as unfinished, before anything else of it is written."""
    write_json(checkpoint / RECORD_FILE, {})


def finish_checkpoint(checkpoint: Path) -> None:
    """Wait until a checkpoint is on the disk, and record size and hash of its files, which makes it count as whole."""
    files = sorted(file for file in checkpoint.rglob("*") if file.is_file() and file.name != RECORD_FILE)
    sync_tree(checkpoint)
    record = {str(file.relative_to(checkpoint)): {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files}
    write_json(checkpoint / RECORD_FILE, record)


def remove_old_checkpoints(folder: Path, keep: int | None, step: int, best: str | None = None) -> None:
    """Remove all but the `keep` newest checkpoints up to `step`, by their steps; None keeps all.

    Folders of other names are left alone, and so is `best`, the checkpoint that Trainer wants to load at the end.
    """
    if not keep or keep < 0:
        return
    for half_removed in folder.glob(f"{REMOVED}checkpoint-*"):
        shutil.rmtree(half_removed, ignore_errors=True)
    kept = 0
    for older in sorted((number for number in _steps(folder) if number <= step), reverse=True):
        checkpoint = folder / f"checkpoint-{older}"
        if kept < keep and (read_object(checkpoint / RECORD_FILE) or not (checkpoint / RECORD_FILE).exists()):
            kept += 1
        elif best is None or checkpoint != Path(best):
            removed = folder / f"{REMOVED}{checkpoint.name}"  # a kill while it is removed leaves none that looks whole
            checkpoint.rename(removed)
            shutil.rmtree(removed, ignore_errors=True)


def sha256(file: Path) -> str:
    """The hash of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, that is of the folders named checkpoint-NUMBER."""
    names = (CHECKPOINT.fullmatch(path.name) for path in folder.glob("checkpoint-*") if path.is_dir())
    return [int(name[1]) for name in names if name]
