"""What the runs of a study have left: scores and logs, by variant and seed."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from alignx_fast.comparison.compare import Contestant
from alignx_fast.evaluation.results import Evaluation
from alignx_fast.report.log import Log, read_log, series
from alignx_fast.stages import Stage
from alignx_fast.study.layout import Layout, seeds_of
from alignx_fast.study.spec import Study, Variant
from alignx_fast.study.tasks import read_scores


@dataclass(frozen=True)
class StageCost:
    """What one stage of one run took; dev losses and checkpoints aside."""

    seconds: float
    tokens: float
    flops: float
    """Floating-point operations of the linear layers."""
    joules: float | None
    """Energy of the GPU; None where that cannot be told."""
    peak_gib: float


@dataclass(frozen=True)
class Results:
    """One variant; what has no scores is missing."""

    variant: Variant
    evaluations: Mapping[int | None, Evaluation]
    """By seed; under None of a model that is not trained."""
    logs: Mapping[int, Log]
    costs: Mapping[int, Mapping[Stage, StageCost]]


def results_of(study: Study) -> list[Results]:
    """The variants that have scores, in the order of the study."""
    every = [_results(study, variant) for variant in study.variants]
    return [results for results in every if results.evaluations]


def shared_seeds(results: Sequence[Results]) -> list[int]:
    """The seeds with which every trained variant has scores: only these can be compared in pairs."""
    seeds = [{seed for seed in each.evaluations if seed is not None} for each in results if each.variant.trained]
    return sorted(set.intersection(*seeds)) if seeds else []


def contestants(results: Sequence[Results]) -> list[Contestant]:
    """The variants as the comparison takes them: over the seeds that all of them have."""
    seeds: list[int | None] = [*shared_seeds(results)]
    return [
        Contestant(each.variant.name, tuple(each.evaluations[seed] for seed in (seeds if each.variant.trained else [None])))
        for each in results
    ]


def mean_cost(results: Results, stage: Stage, value: Callable[[StageCost], float | None]) -> float | None:
    """Mean over the seeds; None where the stage was not trained or the value is not known."""
    values = [known for costs in results.costs.values() if stage in costs and (known := value(costs[stage])) is not None]
    return fmean(values) if values else None


def _results(study: Study, variant: Variant) -> Results:
    layout = Layout(study.output)
    scores = {seed: read_scores(layout.evaluation(variant, seed)) for seed in seeds_of(study, variant)}
    known = {seed: evaluation for seed, evaluation in scores.items() if evaluation is not None}
    logs = {seed: read_log(layout.run(variant, seed) / "log.jsonl") for seed in known if seed is not None}
    costs = {seed: _costs(log, variant.settings.stages) for seed, log in logs.items()}
    return Results(variant, known, logs, costs)


def _costs(log: Log, stages: Sequence[Stage]) -> dict[Stage, StageCost]:
    costs: dict[Stage, StageCost] = {}
    for stage in stages:
        lines = log.steps(stage)
        if series(lines, "tokens"):
            seconds, tokens, flops = (sum(series(lines, key)) for key in ("seconds", "tokens", "flops"))
            joules = series(lines, "joules")
            peak = max(series(lines, "memory_gib"), default=0.0)
            costs[stage] = StageCost(seconds, tokens, flops, sum(joules) if joules else None, peak)
    return costs
