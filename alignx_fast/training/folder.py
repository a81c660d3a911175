"""The run folder: made for a new run, or checked against the settings of the run that it already holds."""

import logging
import shutil
from pathlib import Path

import yaml
from pydantic import ValidationError

from alignx_fast.config import BUILTIN_TINY, Settings, load_settings
from alignx_fast.environment import record
from alignx_fast.errors import UserError
from alignx_fast.evaluation.results import RUN_POINTS
from alignx_fast.files import read_object, write_json, write_text
from alignx_fast.stages import StageName
from alignx_fast.training.callbacks import read_lines
from alignx_fast.training.inputs import RunInputs

log = logging.getLogger(__name__)

MAY_CHANGE = (
    "model.gradient_checkpointing",
    "model.offload_checkpoints",
    "model.attention",
    "data.cache_dir",
    ".tokens_per_micro_batch",
    ".log_every",
    ".evaluate_every",
    ".save_every",
    ".keep_checkpoints",
    ".max_skipped_steps",
    "tracking",
    "evaluation.tasks",
    "evaluation.task_folder",
    "evaluation.task_data",
)
"""Ends of the settings that may change when a run is resumed: memory, speed and record."""

PLACES = ("model.path", "data.parallel", "data.instructions", "data.evaluation")
"""Settings that may change where fingerprints tell whether the same is found there, as after a move to another machine."""

FIXED = ("model.tuning", "model.lora.", "model.tiny_")
"""Beginnings of the settings that decide what a checkpoint holds: no other value can continue from it."""


def open_folder(settings: Settings, inputs: RunInputs, *, resume: bool, accept_changes: bool) -> list[str]:
    """Make ready the run folder `settings.output` for a new run, or for the run that it holds.

    What a start left that failed before its first result is no run, and is replaced.

    Returns:
        settings that differ from those of the run and were accepted.

    Raises:
        UserError: it holds a run and `resume` is false, or that run has other settings.
    """
    folder = settings.output
    accepted: list[str] = []
    if not holds_results(folder):
        _remove_failed_start(folder, inputs)
        write_json(folder / "environment.json", record(settings.seed))
        write_settings(settings)
        return accepted
    if not resume:
        raise UserError(f"{folder} already holds a run: continue it with --resume, or choose another folder with --output.")
    before = _settings_before(folder, inputs)
    if before is None:
        log.warning("The settings of the run in %s cannot be read: those given now are taken in their place.", folder)
    else:
        accepted = _changes(before, settings, inputs, accept_changes=accept_changes)
    if read_object(folder / "environment.json") is None:
        write_json(folder / "environment.json", record(settings.seed))
    return accepted


def write_settings(settings: Settings, folder: Path | None = None) -> None:
    """Save the settings in the run folder, or in the folder that is about to become it."""
    text = yaml.safe_dump(settings.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
    write_text((folder or settings.output) / "settings.yaml", text)


def holds_results(folder: Path) -> bool:
    """Whether there is anything in a run folder that took work: a model, a checkpoint, scores, or a training step in the log."""
    results = [folder / "model", *(folder / "evaluation" / f"{at}.json" for at in RUN_POINTS)]
    results += [path for stage in StageName for path in ((folder / stage / "model"), *(folder / stage).glob("checkpoint-*"))]
    return any(path.exists() for path in results) or any("loss" in line for line in read_lines(folder / "log.jsonl"))


def _remove_failed_start(folder: Path, inputs: RunInputs) -> None:
    """Remove what a failed start has left and a new one would build upon."""
    if not (folder / "settings.yaml").exists():
        return  # not a run folder: what is there is the user's
    try:
        before = _settings_before(folder, inputs)
    except UserError:  # those of another version
        before = None
    if before is not None and before.model.path == BUILTIN_TINY:
        shutil.rmtree(folder / "base", ignore_errors=True)
    for file in (folder / "log.jsonl", inputs.file):
        file.unlink(missing_ok=True)
    inputs.clear()


def _settings_before(folder: Path, inputs: RunInputs) -> Settings | None:
    """The settings of the run in a folder; None where they are damaged.

    Read as settings, so that what a newer version can set has its default in an older run.
    """
    if inputs.settings is not None:
        try:
            return Settings.model_validate(inputs.settings)
        except ValidationError:
            pass  # of another version: settings.yaml says why
    file = folder / "settings.yaml"
    try:
        damaged = not isinstance(yaml.safe_load(file.read_text(encoding="utf-8")), dict)
    except (OSError, ValueError, yaml.YAMLError):
        damaged = True
    return None if damaged else load_settings(file)


def changed_settings(settings: Settings) -> list[str]:
    """The settings with which the run in `settings.output` cannot be continued, by dotted name; none where there is no run."""
    inputs = RunInputs(settings.output)
    before = _settings_before(settings.output, inputs) if holds_results(settings.output) else None
    return [] if before is None else _changed(before, settings, inputs)


def _changed(before: Settings, settings: Settings, inputs: RunInputs) -> list[str]:
    may_change = MAY_CHANGE + (PLACES if inputs.fingerprints else ())
    old, new = dotted(before.model_dump(mode="json")), dotted(settings.model_dump(mode="json"))
    of_the_run = [key for key in new if key != "output" and not key.startswith("corpus.")]  # a corpus is made before the run
    return [key for key in of_the_run if new[key] != old.get(key) and not key.endswith(may_change)]


def _changes(before: Settings, settings: Settings, inputs: RunInputs, *, accept_changes: bool) -> list[str]:
    folder, changed = settings.output, _changed(before, settings, inputs)
    old, new = dotted(before.model_dump(mode="json")), dotted(settings.model_dump(mode="json"))
    for key in changed:
        if key.startswith(FIXED) and accept_changes:
            raise UserError(
                f"{folder} was started with another value of {key}, on which what it has saved depends: give the same value, or choose "
                "another folder with --output."
            )
    if changed and not accept_changes:
        raise UserError(
            f"{folder} was started with another value of {changed[0]}: give the same settings, accept the change with "
            "--accept-changes, or choose another folder with --output."
        )
    return [f"{key}: {old.get(key)!r} -> {new[key]!r}" for key in changed]


def dotted(tree: dict[str, object], prefix: str = "") -> dict[str, object]:
    """Nested settings by their dotted names."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        flat |= dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
