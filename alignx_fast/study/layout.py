"""Where everything of a study lies in its folder, and the settings of each of its runs."""

from dataclasses import dataclass
from pathlib import Path

from alignx_fast.config import EvaluationSettings, Settings
from alignx_fast.study.spec import Study, Variant


@dataclass(frozen=True)
class Layout:
    """The paths of a study folder."""

    folder: Path

    @property
    def study_file(self) -> Path:
        """The study as it was resolved."""
        return self.folder / "study.yaml"

    @property
    def base(self) -> Path:
        """The model that every run starts from, where it is `builtin:tiny`."""
        return self.folder / "base"

    @property
    def sentences(self) -> Path:
        """The held-out sentences, where they come from the phrasebook and not from a file of the user."""
        return self.folder / "sentences.jsonl"

    @property
    def evaluations(self) -> Path:
        """Scores: VARIANT/seed-N.json, of a model that is not trained VARIANT.json."""
        return self.folder / "evaluations"

    def run(self, variant: Variant, seed: int) -> Path:
        """The run folder of one variant and seed."""
        return self.folder / "runs" / variant.name / f"seed-{seed}"

    def evaluation(self, variant: Variant, seed: int | None) -> Path:
        """The scores of one variant and seed; of a model that is not trained the seed is None."""
        return self.evaluations / (f"{variant.name}.json" if seed is None else f"{variant.name}/seed-{seed}.json")

    def log(self, variant: Variant, seed: int | None) -> Path:
        """What training and scoring of one variant and seed have printed."""
        return self.folder / "logs" / (f"{variant.name}.log" if seed is None else f"{variant.name}/seed-{seed}.log")


def seeds_of(study: Study, variant: Variant) -> tuple[int | None, ...]:
    """The seeds of a variant; None stands for the one evaluation of a model that is not trained."""
    return study.seeds if variant.trained else (None,)


def run_settings(study: Study, variant: Variant, seed: int) -> Settings:
    """The settings of an ordinary run; it is scored by the study after it, so its own evaluation is off."""
    own = {
        "name": f"{variant.name}, seed {seed}",
        "seed": seed,
        "output": Layout(study.output).run(variant, seed),
        "evaluation": EvaluationSettings(enabled=False),
    }
    return variant.settings.model_copy(update=own, deep=True)
