"""Checkpoints of a stage: which of them are whole, and what the losses add to them."""

import logging
import re
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from alignx_fast.contents import RECORD_FILE, UNFINISHED, difference, record_of
from alignx_fast.errors import UserError, first_line
from alignx_fast.files import read_object, sync_tree, write_json
from alignx_fast.losses.base import Loss

log = logging.getLogger(__name__)

LOSSES_FILE = "alignment_heads.safetensors"
"""Parameters and memory of the losses, beside the model."""

STATE_FILE = "trainer_state.json"
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
    return difference(checkpoint)


@contextmanager
def readable(checkpoint: str | None) -> Iterator[None]:
    """What cannot be loaded of a checkpoint becomes one sentence: it was damaged, or made with other settings."""
    try:
        yield
    except (UserError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # torch, safetensors and PEFT each have their own
        raise UserError(
            f"{checkpoint} cannot be loaded ({first_line(error)[:300].rstrip('.')}): it is damaged, or made with other settings. "
            "Remove it to continue from the one before."
        ) from error


def begin_checkpoint(checkpoint: Path) -> None:
    """Mark a checkpoint as unfinished, before anything else of it is written."""
    write_json(checkpoint / RECORD_FILE, {})


def finish_checkpoint(checkpoint: Path) -> None:
    """Wait until a checkpoint is on the disk, and record size and hash of its files, which makes it count as whole."""
    sync_tree(checkpoint)
    write_json(checkpoint / RECORD_FILE, record_of(checkpoint))


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


def _steps(folder: Path) -> list[int]:
    """Steps of the checkpoints in a folder, that is of the folders named checkpoint-NUMBER."""
    names = (CHECKPOINT.fullmatch(path.name) for path in folder.glob("checkpoint-*") if path.is_dir())
    return [int(name[1]) for name in names if name]
