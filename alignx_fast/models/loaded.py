"""What a model was really loaded from: weights that are missing would be random numbers, trained without a word."""

from collections.abc import Collection, Mapping

from safetensors import SafetensorError
from transformers import PreTrainedModel

from alignx_fast.errors import UserError, first_line
from alignx_fast.models.capture import decoder_layers


def check_loaded(path: str, model: PreTrainedModel, report: Mapping[str, Collection[str]]) -> None:
    """Refuse a model whose files do not hold all of its weights, or hold decoder layers that it lacks.

    Args:
        report: the loading information of `from_pretrained`: names of tensors under "missing_keys" and "unexpected_keys". Weights that
            are tied to others are not among the missing ones. Unexpected ones outside of the decoder layers (another head) do no harm.

    Raises:
        UserError: names the first such tensor and counts the others.
    """
    missing, unexpected = sorted(report["missing_keys"]), sorted(report["unexpected_keys"])
    layers = next(name for name, module in model.named_modules() if module is decoder_layers(model))
    if missing:
        hint = f" They hold {unexpected[0]} instead, so their tensors have other names." if unexpected else ""
        raise UserError(
            f"The weights of {path} lack {listed(missing)}, which would be random numbers.{hint} Download or save the model again."
        )
    if too_many := [name for name in unexpected if name.startswith(f"{layers}.")]:
        raise UserError(
            f"The weights of {path} hold {listed(too_many)}, for which its config.json has no place. Use the config.json that belongs to them."
        )


def no_weights(path: str, error: SafetensorError) -> UserError:
    """What to say of a folder with files that safetensors cannot read."""
    return UserError(
        f"The weights of {path} are no safetensors data ({first_line(error)}) The file is cut, or a Git LFS pointer in place of one: "
        "download it again."
    )


def listed(names: list[str]) -> str:
    """The first of these names, and how many others there are."""
    return names[0] + (f" and {len(names) - 1} more tensors" if len(names) > 1 else "")
