"""NaN and infinity in weights: found in files before any work, in memory before a model is used or saved."""

from collections.abc import Iterable
from pathlib import Path

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError, safe_open

from alignx_fast.errors import UserError


def non_finite(named: Iterable[tuple[str, torch.Tensor]]) -> list[str]:
    """Names of the tensors that hold NaN or infinity; integers hold neither. Waits for a GPU once, and copies no tensor."""
    floating = [(name, tensor.detach()) for name, tensor in named if tensor.is_floating_point() and tensor.numel()]
    extremes = [torch.stack(torch.aminmax(tensor)).isfinite().all() for name, tensor in floating]  # NaN is passed on
    finite = torch.stack(extremes).tolist() if extremes else []
    return [name for (name, _), whole in zip(floating, finite, strict=True) if not whole]


def check_finite(what: str, named: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Refuse weights that hold NaN or infinity.

    Raises:
        UserError: names the first such tensor and counts the others.
    """
    if names := non_finite(named):
        raise UserError(_refusal(what, names))


def check_finite_files(path: str) -> None:
    """The same of the safetensors files of a folder, or of a hub's model as far as it lies here already.

    4-bit weights must be looked at here: once they are rounded, NaN is a number as any other.

    Raises:
        UserError: names the first such tensor and counts the others.
    """
    names = []
    for file in _weight_files(path):
        try:
            with safe_open(file, framework="pt") as tensors:
                names += non_finite((name, tensors.get_tensor(name)) for name in tensors.keys())  # noqa: SIM118  # no mapping
        except (SafetensorError, OSError):
            continue  # what cannot be read is named where the model is loaded
    if names:
        raise UserError(_refusal(path, names))


def _weight_files(path: str) -> list[Path]:
    folder = Path(path)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(path, allow_patterns="*.safetensors", local_files_only=True))
        except (OSError, ValueError):  # not here yet
            return []
    return sorted(folder.glob("*.safetensors"))


def _refusal(what: str, names: list[str]) -> str:
    others = f" and in {len(names) - 1} more tensors" if len(names) > 1 else ""
    return (
        f"The weights of {what} are not finite: there is NaN or infinity in {names[0]}{others}. A model whose training has diverged is "
        "of no use: take one from before, or download it again."
    )
