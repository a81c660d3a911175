"""Checkpoints of a stage: which of them are complete, and what the losses add to them."""

import json
from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from alignx_fast.errors import UserError
from alignx_fast.losses.base import Loss

LOSSES_FILE = "alignment_heads.safetensors"
"""Parameters and memory of the losses, beside the model."""


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


def last_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint of a stage; what a kill left half-written is passed over."""
    checkpoints = sorted(folder.glob("checkpoint-*"), key=lambda path: int(path.name.removeprefix("checkpoint-")))
    return next((path for path in reversed(checkpoints) if is_complete(path)), None)


def is_complete(checkpoint: Path) -> bool:
    """Whether the Trainer has written all of it: its state comes last."""
    try:
        json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError):
        return False
    return True
