"""The run folder: made for a new run, or checked against the settings of the run that it already holds."""

import yaml

from alignx_fast.config import Settings, load_settings
from alignx_fast.environment import record
from alignx_fast.errors import UserError
from alignx_fast.files import write_json, write_text

MAY_CHANGE = (
    "model.gradient_checkpointing",
    "model.offload_checkpoints",
    "model.attention",
    ".tokens_per_micro_batch",
    ".log_every",
    ".evaluate_every",
    ".save_every",
    ".keep_checkpoints",
    "tracking",
    "evaluation.tasks",
    "evaluation.task_folder",
)
"""Ends of the settings that may change when a run is resumed: memory, speed and record."""


def open_folder(settings: Settings, *, resume: bool) -> None:
    """Make the run folder `settings.output`, or open the one that is there to continue its run.

    Raises:
        UserError: it cannot be made, it holds a run and `resume` is false, or that run has other settings.
    """
    folder = settings.output
    file = folder / "settings.yaml"
    wanted = settings.model_dump(mode="json")
    if file.exists():
        if not resume:
            raise UserError(f"{folder} already holds a run: continue it with --resume, or choose another folder with --output.")
        # Read as settings, so that what a newer version can set has its default in an older run.
        before, now = dotted(load_settings(file).model_dump(mode="json")), dotted(wanted)
        changed = [key for key in now if now[key] != before[key] and key != "output" and not key.endswith(MAY_CHANGE)]
        if changed:
            raise UserError(
                f"{folder} was started with another value of {changed[0]}: give the same settings, or choose another folder with --output."
            )
    else:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"Cannot make the run folder {folder}: {error.strerror}. Choose another with --output.") from None
        write_json(folder / "environment.json", record(settings.seed))
    write_text(file, yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True))


def dotted(tree: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Nested settings by their dotted names."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        flat |= dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
