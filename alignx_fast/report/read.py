"""What a run folder holds, and what it lacks."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from alignx_fast.errors import UserError

MOMENTS = {"before": "before", "ntp_only": "L_ntp alone", "after_align": "after stage 1", "after": "after"}
"""File names under evaluation/, in the order of the run, and how the page calls them."""
STAGES = {"align": "stage 1, align", "ntp_only": "stage 1 control, L_ntp alone", "instruct": "stage 2, instruct"}
"""Stages of the log, in the order of the run, and how the page calls them."""


@dataclass
class Run:
    """A run folder's contents; what is missing or unreadable is empty here and has a sentence in `missing`."""

    folder: Path
    settings: dict[str, Any] = field(default_factory=dict)
    settings_text: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    log: list[dict[str, Any]] = field(default_factory=list)
    data: dict[str, dict[str, Any]] = field(default_factory=dict)
    evaluation: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Name of the run, for the title."""
        return str(self.settings.get("name") or self.folder.resolve().name)

    @property
    def stages(self) -> list[str]:
        """Stages that the settings ask for."""
        return list(self.settings.get("stages") or [stage for stage in ("align", "instruct") if self.steps(stage)])

    def steps(self, stage: str) -> list[dict[str, Any]]:
        """The log's training lines of one stage, in order."""
        return [line for line in self.log if line.get("stage") == stage and "event" not in line and "step" in line]

    def dev(self, stage: str) -> list[dict[str, Any]]:
        """The log's dev-set lines of one stage, in order."""
        return [line for line in self.log if line.get("stage") == stage and line.get("event") == "dev" and "step" in line]


def read_run(folder: Path) -> Run:
    """Read a run folder; half-written, absent and unreadable parts are named in `missing`.

    Raises:
        UserError: the folder does not exist or holds nothing of a run.
    """
    if not folder.is_dir():
        raise UserError(f"There is no run folder {folder}. Give the folder that `alignx-fast train` wrote to.")
    if not any((folder / part).exists() for part in ("settings.yaml", "log.jsonl", "evaluation")):
        raise UserError(
            f"{folder} is not a run folder: it has no settings.yaml. Give the folder that `alignx-fast train` wrote to."
        )
    run = Run(folder)
    read_settings(run)
    run.environment = read_json(run, folder / "environment.json", "environment")
    read_log(run)
    for stage in run.stages:
        if summary := read_json(run, folder / "data" / f"{stage}.json", f"data table of {STAGES.get(stage, stage)}"):
            run.data[stage] = summary
    read_evaluation(run)
    if not (folder / "model").is_dir():
        run.missing.append("There is no final model: the run was interrupted or has not ended yet.")
    return run


def read_settings(run: Run) -> None:
    try:
        run.settings_text = (run.folder / "settings.yaml").read_text(encoding="utf-8")
        tree = yaml.safe_load(run.settings_text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        tree = None
    if isinstance(tree, dict):
        run.settings = tree
    else:
        run.missing.append("The settings (settings.yaml) are missing or unreadable.")


def read_log(run: Run) -> None:
    """Read log.jsonl; a killed run may leave half a line, which is skipped."""
    path = run.folder / "log.jsonl"
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if isinstance(line, dict):
            run.log.append(line)
    for stage in run.stages or ["align"]:
        if not run.steps(stage):
            run.missing.append(f"The log has no training steps of {STAGES.get(stage, stage)}.")


def read_evaluation(run: Run) -> None:
    """Read what evaluation/ holds; the scores before and after are expected of every run that evaluates."""
    wanted = (run.settings.get("evaluation") or {}).get("enabled", True)
    for when, label in MOMENTS.items():
        path = run.folder / "evaluation" / f"{when}.json"
        expected = path.exists() or (wanted and when in ("before", "after"))
        if expected and (scores := read_json(run, path, f"scores '{label}'")):
            run.evaluation[when] = scores
    if not wanted and not run.evaluation:
        run.missing.append("Evaluation was switched off in the settings.")


def read_json(run: Run, path: Path, what: str) -> dict[str, Any]:
    """A JSON object, or {} and a sentence in `run.missing`."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        value = None
    if isinstance(value, dict):
        return value
    run.missing.append(f"{path.relative_to(run.folder)} is missing or unreadable: this page has no {what}.")
    return {}
