"""What a run folder holds, and what it lacks."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from alignx_fast.errors import UserError
from alignx_fast.evaluation.results import RUN_POINTS, EvaluatedAt, Evaluation
from alignx_fast.report.labels import POINT_TITLES, stage_title
from alignx_fast.report.log import Log, read_log
from alignx_fast.stages import StageName

PREPARED = "data/prepared.json"
Tree = Mapping[str, object]
"""A JSON or YAML object."""
Evaluations = Mapping[EvaluatedAt, Evaluation]
"""A run's evaluations, in the order of the run."""


@dataclass(frozen=True)
class RunSettings:
    """What the page says of a run's settings."""

    text: str = ""
    """The file as it is; empty where it cannot be read."""
    name: str | None = None
    stages: list[str] = field(default_factory=list)
    model_path: str | None = None
    tuning: str | None = None
    evaluated: bool = True


@dataclass(frozen=True)
class Run:
    """A run folder's contents; what is missing or unreadable is empty here and has a sentence in `missing`."""

    folder: Path
    settings: RunSettings
    environment: Tree
    log: Log
    stages: list[str]
    """Those that the settings ask for, or else those that the log has."""
    data: dict[str, Tree]
    """Summary of the training data by stage."""
    prepared: Tree
    """In short, the data card of every folder of `alignx-fast prepare` among the sources."""
    evaluations: Evaluations
    missing: list[str]

    @property
    def name(self) -> str:
        """Name of the run, for the title."""
        return self.settings.name or self.folder.resolve().name


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
    missing: list[str] = []
    settings = read_settings(folder, missing)
    environment = read_object(folder, "environment.json", "environment", missing)
    log = read_log(folder / "log.jsonl")
    stages = settings.stages or [stage for stage in (StageName.ALIGN, StageName.INSTRUCT) if log.steps(stage)]
    for stage in stages or [StageName.ALIGN]:
        if not log.steps(stage):
            missing.append(f"The log has no training steps of {stage_title(stage)}.")
    data = {stage: read_object(folder, f"data/{stage}.json", f"data table of {stage_title(stage)}", missing) for stage in stages}
    with_cards = (folder / PREPARED).exists()  # runs of older versions have none
    prepared = read_object(folder, PREPARED, "table of prepared folders", missing) if with_cards else {}
    evaluations = read_evaluations(folder, settings.evaluated, missing)
    if not (folder / "model").is_dir():
        missing.append("There is no final model: the run was interrupted or has not ended yet.")
    return Run(
        folder=folder,
        settings=settings,
        environment=environment,
        log=log,
        stages=stages,
        data={stage: summary for stage, summary in data.items() if summary},
        prepared=prepared,
        evaluations=evaluations,
        missing=missing,
    )


def read_settings(folder: Path, missing: list[str]) -> RunSettings:
    """Read settings.yaml."""
    text = ""
    try:
        text = (folder / "settings.yaml").read_text(encoding="utf-8")
        tree = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        tree = None
    if not isinstance(tree, dict):
        missing.append("The settings (settings.yaml) are missing or unreadable.")
        return RunSettings(text)
    model, evaluation = (group if isinstance(group := tree.get(key), dict) else {} for key in ("model", "evaluation"))
    return RunSettings(
        text=text,
        name=str(tree["name"]) if tree.get("name") else None,
        stages=[str(stage) for stage in tree.get("stages") or []],
        model_path=str(model["path"]) if "path" in model else None,
        tuning=str(model["tuning"]) if "tuning" in model else None,
        evaluated=bool(evaluation.get("enabled", True)),
    )


def read_evaluations(folder: Path, wanted: bool, missing: list[str]) -> dict[EvaluatedAt, Evaluation]:
    """Read what evaluation/ holds; the scores before and after are expected of every run that evaluates."""
    evaluations: dict[EvaluatedAt, Evaluation] = {}
    for at in RUN_POINTS:
        name, what = f"evaluation/{at}.json", f"scores '{POINT_TITLES[at]}'"
        expected = wanted and at in (EvaluatedAt.BEFORE, EvaluatedAt.AFTER)
        if not expected and not (folder / name).exists():
            continue
        if tree := read_object(folder, name, what, missing):
            try:
                evaluations[at] = Evaluation.from_json(tree)
            except ValueError:
                missing.append(unreadable(name, what))
    if not wanted and not evaluations:
        missing.append("Evaluation was switched off in the settings.")
    return evaluations


def read_object(folder: Path, name: str, what: str, missing: list[str]) -> Tree:
    """The JSON object in a file of the run folder, or an empty one and a sentence in `missing`."""
    try:
        value = json.loads((folder / name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError):
        value = None
    if isinstance(value, dict):
        return value
    missing.append(unreadable(name, what))
    return {}


def unreadable(name: str, what: str) -> str:
    """The sentence on a file that is missing or unreadable."""
    return f"{name} is missing or unreadable: this page has no {what}."
