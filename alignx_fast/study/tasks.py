"""The work of a study as a list of tasks, each of which knows from the files what of it is done."""

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from alignx_fast.config import EvaluationSettings, ModelSettings, Settings
from alignx_fast.evaluation.results import Evaluation
from alignx_fast.files import read_object
from alignx_fast.study.layout import Layout, run_settings, seeds_of
from alignx_fast.study.spec import Study, Variant
from alignx_fast.study.stage1 import begin_with_stage_1, has_stage_1, stage_1_key
from alignx_fast.training.folder import holds_results, write_settings

log = logging.getLogger(__name__)

OF_AN_UNTRAINED_MODEL = ("dtype", "attention", "align_layer", "trust_remote_code")
"""Settings of the model that matter where it is only scored; a run folder has its own."""


class Step(StrEnum):
    """What a process of its own does."""

    TRAIN = "train"
    SCORE = "evaluate"


@dataclass(frozen=True)
class Task:
    """One variant with one seed, to be trained and scored; a model that is not trained has no seed and no settings."""

    study: Study
    variant: Variant
    seed: int | None
    settings: Settings | None
    donor: Path | None = None
    """Run folder of an earlier task that has the same stage 1."""

    @property
    def title(self) -> str:
        """Such as "alignx, seed 1"."""
        return self.variant.name if self.seed is None else f"{self.variant.name}, seed {self.seed}"

    @property
    def log_file(self) -> Path:
        """Where its processes print to."""
        return Layout(self.study.output).log(self.variant, self.seed)

    @property
    def scores_file(self) -> Path:
        """Where its scores are written."""
        return Layout(self.study.output).evaluation(self.variant, self.seed)

    def next_step(self) -> Step | None:
        """What is to do next; None where nothing is."""
        if self.settings is not None and not (self.settings.output / "model").is_dir():
            return Step.TRAIN
        return None if read_scores(self.scores_file) is not None else Step.SCORE

    def waits(self, unfinished: set[Path]) -> bool:
        """Whether to wait for an earlier task, one of the `unfinished` run folders, to finish the stage 1 that this one has too."""
        if self.settings is None or self.donor is None or holds_results(self.settings.output):
            return False
        return self.donor in unfinished and not has_stage_1(self.donor)

    def command(self, step: Step) -> list[str]:
        """The command of a step; makes the run folder ready for it."""
        program = [sys.executable, "-m", "alignx_fast", step]
        if step is Step.SCORE:
            if self.scores_file.exists():
                log.warning("%s cannot be read: its scores are taken again.", self.scores_file)
            return [*program, self._model(), "--output", str(self.scores_file), *self._scoring()]
        assert self.settings is not None  # what is not trained has no such step
        if self.donor is not None:
            begin_with_stage_1(self.donor, self.settings)
        if not holds_results(self.settings.output):
            write_settings(self.settings)
        return [*program, str(self.settings.output / "settings.yaml"), "--output", str(self.settings.output), "--resume"]

    def _model(self) -> str:
        return self.variant.settings.model.path if self.settings is None else str(self.settings.output)

    def _scoring(self) -> Iterator[str]:
        """Options that score every model alike."""
        shared = self.study.shared
        yield "--allow-overlap"  # looked for once, before the first run
        yield f"--data.evaluation={shared.data.evaluation or Layout(self.study.output).sentences}"
        yield from options(
            "evaluation", self.study.evaluation.model_dump(mode="json"), EvaluationSettings().model_dump(mode="json")
        )
        if self.settings is None:
            yield f"--data.template={self.variant.settings.data.template}"
            model = self.variant.settings.model.model_dump(mode="json", include=set(OF_AN_UNTRAINED_MODEL))
            yield from options("model", model, ModelSettings().model_dump(mode="json"))


def tasks_of(study: Study) -> list[Task]:
    """All tasks, seed by seed, so that every variant has results early; untrained models first."""
    donors: dict[str, Path] = {}
    tasks = []
    for seed in (None, *study.seeds):
        for variant in study.variants:
            if seed not in seeds_of(study, variant):
                continue
            if seed is None:
                tasks.append(Task(study, variant, None, None))
                continue
            settings = run_settings(study, variant, seed)
            key = stage_1_key(settings)
            tasks.append(Task(study, variant, seed, settings, donors.get(key) if key else None))
            if key:
                donors.setdefault(key, settings.output)
    return tasks


def read_scores(file: Path) -> Evaluation | None:
    """The evaluation in a file; None where there is none, or the file is damaged."""
    tree = read_object(file)
    try:
        return Evaluation.from_json(tree) if tree else None
    except ValueError:
        return None


def options(group: str, settings: Mapping[str, object], default: Mapping[str, object]) -> Iterator[str]:
    """What differs from the defaults as options of the command line."""
    for key, value in settings.items():
        if value != default[key]:
            text = (
                ",".join(map(str, value)) if isinstance(value, list) else value if isinstance(value, str) else json.dumps(value)
            )
            yield f"--{group}.{key}={text}"
