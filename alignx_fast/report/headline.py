"""The cards at the top of the page: one average for each score."""

import math
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import TypeVar

from alignx_fast.evaluation.results import EvaluatedAt, Evaluation, LanguagePerplexity
from alignx_fast.report.formats import decimal, percent
from alignx_fast.report.read import Evaluations

Value = TypeVar("Value")
Scored = TypeVar("Scored")


@dataclass(frozen=True)
class Card:
    """One score at every point that has it, written out."""

    name: str
    note: str
    values: list[tuple[EvaluatedAt, str]]


def headline(evaluations: Evaluations) -> list[Card]:
    """The cards of the scores that the run has. Averages are over what all points share, so that they compare like with like."""
    directions = shared(evaluation.translation for evaluation in evaluations.values())
    languages = shared(evaluation.perplexity for evaluation in evaluations.values())
    tasks = shared(evaluation.understanding for evaluation in evaluations.values())
    chance = first(evaluations, lambda evaluation: evaluation.retrieval.chance)

    def card(name: str, note: str, show: Callable[[float], str], score: Callable[[Evaluation], float | None]) -> Card:
        values = [(at, show(value)) for at, scores in evaluations.items() if (value := score(scores)) is not None]
        return Card(name, note, values)

    cards = [
        card(
            "Retrieval top-1",
            f"chance {percent(chance)}, more is better" if chance else "more is better",
            percent,
            lambda evaluation: evaluation.retrieval.average,
        ),
        card(
            "chrF++",
            "0 to 100, more is better",
            decimal,
            lambda evaluation: mean(evaluation.translation, directions, lambda pair: pair.chrf),
        ),
        card(
            "BLEU",
            "0 to 100, more is better",
            decimal,
            lambda evaluation: mean(evaluation.translation, directions, lambda pair: pair.bleu),
        ),
        card(
            "Perplexity",
            "per token, less is better",
            decimal,
            lambda evaluation: mean_perplexity(evaluation.perplexity, languages),
        ),
        card(
            "Understanding",
            "tasks, more is better",
            percent,
            lambda evaluation: mean(evaluation.understanding, tasks, lambda task: task.score),
        ),
    ]
    return [card for card in cards if card.values]


def shared(parts: Iterable[Mapping[str, object]]) -> set[str]:
    """The keys that all parts have, empty ones aside."""
    keys = [set(part) for part in parts if part]
    return set.intersection(*keys) if keys else set()


def first(evaluations: Evaluations, value: Callable[[Evaluation], Value | None]) -> Value | None:
    """The value of the first evaluation that has it."""
    return next((known for scores in evaluations.values() if (known := value(scores)) is not None), None)


def mean(part: Mapping[str, Scored], keys: AbstractSet[str], score: Callable[[Scored], float]) -> float | None:
    """Arithmetic mean over the keys; None of an empty part or of no key."""
    values = [score(part[key]) for key in sorted(keys)] if part else []
    return sum(values) / len(values) if values else None


def mean_perplexity(part: Mapping[str, LanguagePerplexity], languages: AbstractSet[str]) -> float | None:
    """Geometric mean of the languages' perplexities; None where any is missing."""
    known = [part[language].perplexity for language in sorted(languages)] if part else []
    values = [value for value in known if value is not None]
    if not values or len(values) < len(known):
        return None
    return math.exp(sum(math.log(value) for value in values) / len(values))


def translation_by_chance(evaluations: Evaluations) -> tuple[str, str] | None:
    """Mean chrF++ and BLEU of answering with another sentence's reference."""
    scores = first(
        evaluations,
        lambda evaluation: [pair.chance for pair in evaluation.translation.values() if pair.chance is not None] or None,
    )
    if not scores:
        return None
    chrf, bleu = (sum(values) / len(scores) for values in ((s.chrf for s in scores), (s.bleu for s in scores)))
    return decimal(chrf), decimal(bleu)
