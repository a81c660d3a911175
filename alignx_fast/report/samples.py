"""Translations shown on the page, as they are."""

from dataclasses import dataclass, field

from alignx_fast.evaluation.results import EvaluatedAt
from alignx_fast.report.read import Evaluations

PER_DIRECTION = 3


@dataclass(frozen=True)
class Sample:
    """A held-out sentence, its reference and the answers of every point."""

    direction: str
    source: str
    reference: str
    answers: dict[EvaluatedAt, str] = field(default_factory=dict)


def samples(evaluations: Evaluations) -> list[Sample]:
    """The first `PER_DIRECTION` translations of each direction."""
    directions = sorted({direction for evaluation in evaluations.values() for direction in evaluation.translation})
    return [sample for direction in directions for sample in of_direction(evaluations, direction)[:PER_DIRECTION]]


def of_direction(evaluations: Evaluations, direction: str) -> list[Sample]:
    """Every sentence that any point translated in one direction."""
    by_source: dict[str, Sample] = {}
    for at, evaluation in evaluations.items():
        if direction not in evaluation.translation:
            continue
        for example in evaluation.translation[direction].examples:
            sample = by_source.setdefault(example.source, Sample(direction, example.source, example.reference))
            sample.answers[at] = example.hypothesis
    return list(by_source.values())
