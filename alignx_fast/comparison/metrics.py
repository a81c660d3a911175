"""Which numbers are read from an evaluation: one `Metric` for every line of a comparison."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from alignx_fast.evaluation.results import DirectionTranslation, Evaluation, Interval

Part = TypeVar("Part")


@dataclass(frozen=True)
class Score:
    """One number of one evaluation."""

    value: float
    n: int | None = None
    """Held-out items behind it."""
    interval: Interval | None = None
    """Over these items, where it is known."""


@dataclass(frozen=True)
class Metric:
    """A line of the table."""

    group: str
    """Heading under which it stands."""
    name: str
    """Such as "chrF++ en-sw"."""
    read: Callable[[Evaluation], Score | None]
    more_is_better: bool = True
    percent: bool = False
    """Shown as a percentage; the value is a share."""


def metrics(evaluations: Sequence[Evaluation]) -> list[Metric]:
    """Every metric that all of the evaluations have, averages first."""
    candidates = [
        *_translation(evaluations),
        *_retrieval(evaluations),
        *_prediction(evaluations),
        *_understanding(evaluations),
    ]
    return [metric for metric in candidates if all(metric.read(evaluation) is not None for evaluation in evaluations)]


TEXT_SCORES: tuple[tuple[str, Callable[[DirectionTranslation], float | None], bool, bool], ...] = (
    ("chrF++", lambda direction: direction.chrf, True, False),
    ("BLEU", lambda direction: direction.bleu, True, False),
    ("off-target rate", lambda direction: direction.off_target, False, True),
)
"""Name, value, whether more is better, whether it is a share."""


def _translation(evaluations: Sequence[Evaluation]) -> Iterable[Metric]:
    directions = shared_keys(evaluation.translation for evaluation in evaluations)
    for name, value, more, percent in TEXT_SCORES:
        yield Metric("translation", name, _mean_direction(directions, value), more, percent)
    for name, value, more, percent in TEXT_SCORES[:1]:
        for direction in directions:
            yield Metric("translation", f"{name} {direction}", _mean_direction([direction], value), more, percent)


def _mean_direction(
    directions: Sequence[str], value: Callable[[DirectionTranslation], float | None]
) -> Callable[[Evaluation], Score | None]:
    def read(evaluation: Evaluation) -> Score | None:
        parts = [evaluation.translation[direction] for direction in directions]
        values = [value(part) for part in parts]
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            return None
        return Score(sum(known) / len(known), n=sum(part.n or 0 for part in parts) or None)

    return read


def _retrieval(evaluations: Sequence[Evaluation]) -> Iterable[Metric]:
    yield Metric("retrieval", "top-1 at the align layer", _average_retrieval, percent=True)
    yield Metric("retrieval", "top-1 at the best layer", _best_retrieval, percent=True)
    for pair in shared_keys(evaluation.retrieval.pairs for evaluation in evaluations):

        def read(evaluation: Evaluation, pair: str = pair) -> Score:
            scores = evaluation.retrieval.pairs[pair]
            return Score(scores.top1, scores.n)

        yield Metric("retrieval", f"top-1 {pair}", read, percent=True)


def _average_retrieval(evaluation: Evaluation) -> Score | None:
    average = evaluation.retrieval.average
    return None if average is None else Score(average, evaluation.sentences)


def _best_retrieval(evaluation: Evaluation) -> Score | None:
    known = [value for value in evaluation.layers.retrieval if value is not None]
    return Score(max(known), evaluation.sentences) if known else None


def _prediction(evaluations: Sequence[Evaluation]) -> Iterable[Metric]:
    languages = shared_keys(evaluation.perplexity for evaluation in evaluations)

    def reader(codes: Sequence[str]) -> Callable[[Evaluation], Score | None]:
        def read(evaluation: Evaluation) -> Score | None:
            values = [evaluation.perplexity[code].bits_per_character for code in codes]
            known = [value for value in values if value is not None]
            return Score(sum(known) / len(known)) if known and len(known) == len(values) else None

        return read

    yield Metric("prediction", "bits per character", reader(languages), more_is_better=False)
    for code in languages:
        yield Metric("prediction", f"bits per character {code}", reader([code]), more_is_better=False)


def _understanding(evaluations: Sequence[Evaluation]) -> Iterable[Metric]:
    tasks = shared_keys(evaluation.understanding for evaluation in evaluations)

    def reader(names: Sequence[str]) -> Callable[[Evaluation], Score | None]:
        def read(evaluation: Evaluation) -> Score | None:
            scores = [evaluation.understanding[name] for name in names]
            return Score(sum(s.score for s in scores) / len(scores), sum(s.n or 0 for s in scores) or None) if scores else None

        return read

    yield Metric("understanding", "mean of the tasks", reader(tasks), percent=True)
    for task in tasks:
        yield Metric("understanding", task, reader([task]), percent=True)


def shared_keys(parts: Iterable[Mapping[str, object]]) -> list[str]:
    """The keys that all parts have, sorted."""
    keys = [set(part) for part in parts]
    return sorted(set.intersection(*keys)) if keys else []
