"""Models side by side: means, intervals and differences from a baseline."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from pydantic import BaseModel, ConfigDict

from alignx_fast.comparison.metrics import Metric, Score, metrics
from alignx_fast.errors import UserError
from alignx_fast.evaluation.intervals import seeds_interval
from alignx_fast.evaluation.results import Evaluation, Interval
from alignx_fast.evaluation.significance import ALL_DIRECTIONS, Method, paired_tests
from alignx_fast.evaluation.spbleu import PieceTokenizer


@dataclass(frozen=True)
class Contestant:
    """A model, or a recipe trained with several seeds."""

    name: str
    evaluations: tuple[Evaluation, ...]
    """One a seed, in the order of the seeds."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore")


class Cell(_Record):
    """One metric of one model."""

    value: float
    """Mean over the seeds."""
    interval: Interval | None = None
    """95 %: over the seeds where there are several, else over the held-out items."""
    n: int | None = None
    """Held-out items."""
    seeds: int = 1


class Difference(_Record):
    """A model against the baseline on one metric."""

    value: float
    interval: Interval | None = None
    """95 %, over pairs of runs with the same seed; None of a single pair."""
    p: float | None = None
    """Of sacrebleu's paired bootstrap over the sentences, where there is one."""
    p_randomisation: float | None = None
    """Of its paired approximate randomisation."""

    @property
    def is_clear(self) -> bool:
        """Whether the interval, or without one the p-value at 0.05, leaves out no difference."""
        if self.interval is not None:
            return not self.interval.low <= 0 <= self.interval.high
        return self.p is not None and self.p < 0.05


class Row(_Record):
    """One line of the table."""

    group: str
    name: str
    more_is_better: bool = True
    percent: bool = False
    cells: dict[str, Cell]
    """By model."""
    differences: dict[str, Difference] = {}
    """By model, without the baseline."""


class Comparison(_Record):
    """The whole table."""

    models: tuple[str, ...]
    baseline: str | None = None
    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()

    def only(self, groups: Sequence[str]) -> Self:
        """The rows of some groups."""
        return self.model_copy(update={"rows": tuple(row for row in self.rows if row.group in groups)})


PValues = Mapping[Method, Mapping[str, float]]
"""By the name of the row."""


def compare(models: Sequence[Contestant], baseline: str | None = None, *, spbleu: PieceTokenizer | None = None) -> Comparison:
    """Every metric that all models have, with differences from the baseline where one is named.

    Args:
        spbleu: tokenizer of spBLEU, which is not tested without it.

    Raises:
        UserError: two models of one name, a model without an evaluation, or a baseline that is none of the models.
    """
    names = [model.name for model in models]
    if len(set(names)) < len(names):
        raise UserError(
            f"Two models are called {next(name for name in names if names.count(name) > 1)!r}: give each its own name."
        )
    if empty := [model.name for model in models if not model.evaluations]:
        raise UserError(f"{empty[0]} has no evaluation: there is nothing to compare.")
    if baseline is not None and baseline not in names:
        raise UserError(f"The baseline {baseline!r} is none of the models: {', '.join(names)}.")
    reference = next((model for model in models if model.name == baseline), None)
    p_values = (
        {}
        if reference is None
        else {model.name: _p_values(model, reference, spbleu) for model in models if model is not reference}
    )
    every = [evaluation for model in models for evaluation in model.evaluations]
    return Comparison(
        models=tuple(names),
        baseline=baseline,
        rows=tuple(_row(metric, models, reference, p_values) for metric in metrics(every)),
        notes=_notes(models, tested=any(p_values.values())),
    )


def _p_values(model: Contestant, baseline: Contestant, spbleu: PieceTokenizer | None) -> PValues:
    """Of single evaluations, means over directions by all sentences together; over several seeds, the seeds are what varies."""
    if len(model.evaluations) > 1 or len(baseline.evaluations) > 1:
        return {}
    theirs, mine = (each.evaluations[0].translation for each in (baseline, model))
    if not theirs.keys() & mine.keys():
        return {}
    values: dict[Method, dict[str, float]] = {}
    for method in Method:
        tests = paired_tests(theirs, mine, method, spbleu=spbleu)
        overall = tests.get(ALL_DIRECTIONS) or next(iter(tests.values()))  # the mean of one direction is that direction
        values[method] = {f"{test.metric} {name}": test.p_value for name, direction in tests.items() for test in direction}
        values[method] |= {test.metric: test.p_value for test in overall}
    return values


def _row(
    metric: Metric,
    models: Sequence[Contestant],
    baseline: Contestant | None,
    p_values: Mapping[str, PValues],
) -> Row:
    return Row(
        group=metric.group,
        name=metric.name,
        more_is_better=metric.more_is_better,
        percent=metric.percent,
        cells={model.name: _cell(_scores(metric, model)) for model in models},
        differences={
            model.name: _difference(metric, model, baseline, p_values[model.name] if metric.group == "translation" else {})
            for model in models
            if baseline is not None and model is not baseline
        },
    )


def _scores(metric: Metric, model: Contestant) -> list[Score]:
    scores = [metric.read(evaluation) for evaluation in model.evaluations]
    return [score for score in scores if score is not None]


def _cell(scores: Sequence[Score]) -> Cell:
    values = [score.value for score in scores]
    return Cell(
        value=sum(values) / len(values),
        interval=scores[0].interval if len(scores) == 1 else seeds_interval(values),
        n=scores[0].n,
        seeds=len(scores),
    )


def _difference(metric: Metric, model: Contestant, baseline: Contestant, p_values: PValues) -> Difference:
    """Paired by seed; one evaluation, such as that of an untrained model, stands against every seed of the other."""
    mine, others = ([score.value for score in _scores(metric, each)] for each in (model, baseline))
    length = max(len(mine), len(others))
    mine, others = (values * length if len(values) == 1 else values for values in (mine, others))
    differences = [a - b for a, b in zip(mine, others, strict=True)]
    bootstrap, randomisation = (p_values.get(method, {}).get(metric.name) for method in (Method.BOOTSTRAP, Method.RANDOMISATION))
    return Difference(
        value=sum(differences) / len(differences),
        interval=seeds_interval(differences),
        p=bootstrap,
        p_randomisation=randomisation,
    )


def _notes(models: Sequence[Contestant], *, tested: bool) -> tuple[str, ...]:
    notes = []
    if any(len(model.evaluations) > 1 for model in models):
        notes.append("Intervals are 95 %, over seeds (Student's t); differences are paired by seed.")
    if tested:
        notes.append(
            "p is that of sacrebleu's paired bootstrap over the sentences; of averages, over those of all directions together."
        )
    return tuple(notes)
