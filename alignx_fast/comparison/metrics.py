"""Which numbers are read from an evaluation: one `Metric` for every line of a comparison."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from alignx_fast.evaluation.results import (
    DirectionTranslation,
    Evaluation,
    Interval,
    LayerScores,
    MonolingualScore,
)

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
        *_representations(evaluations),
        *_prediction(evaluations),
        *_understanding(evaluations),
        *_one_language("continuations", evaluations, lambda evaluation: evaluation.continuations),
        *_one_language("answers", evaluations, lambda evaluation: evaluation.answers),
    ]
    return [metric for metric in candidates if all(metric.read(evaluation) is not None for evaluation in evaluations)]


@dataclass(frozen=True)
class TextScore:
    """One score of a direction."""

    name: str
    value: Callable[[DirectionTranslation], float | None]
    interval: Callable[[DirectionTranslation], Interval | None] = lambda direction: None
    more_is_better: bool = True
    percent: bool = False
    by_direction: bool = True


TEXT_SCORES = (
    TextScore("chrF++", lambda scores: scores.chrf, lambda scores: scores.chrf_interval),
    TextScore("spBLEU", lambda scores: scores.spbleu, lambda scores: scores.spbleu_interval),
    TextScore("BLEU", lambda scores: scores.bleu, lambda scores: scores.bleu_interval),
    TextScore("TER", lambda scores: scores.ter, lambda scores: scores.ter_interval, more_is_better=False),
    TextScore("COMET", lambda scores: scores.comet, lambda scores: scores.comet_interval),
    TextScore("off-target rate", lambda scores: scores.off_target, more_is_better=False, percent=True, by_direction=False),
    TextScore("unfinished answers", lambda scores: scores.unfinished, more_is_better=False, percent=True, by_direction=False),
)


def _translation(evaluations: Sequence[Evaluation]) -> Iterable[Metric]:
    directions = shared_keys(evaluation.translation for evaluation in evaluations)
    for score in TEXT_SCORES:
        yield Metric("translation", score.name, _directions(directions, score), score.more_is_better, score.percent)
    for score in TEXT_SCORES:
        for direction in directions if score.by_direction else ():
            yield Metric("translation", f"{score.name} {direction}", _directions([direction], score), score.more_is_better)


def _directions(directions: Sequence[str], score: TextScore) -> Callable[[Evaluation], Score | None]:
    """The mean over directions; the interval is known for a single one."""

    def read(evaluation: Evaluation) -> Score | None:
        parts = [evaluation.translation[direction] for direction in directions]
        values = [score.value(part) for part in parts]
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            return None
        interval = score.interval(parts[0]) if len(parts) == 1 else None
        return Score(sum(known) / len(known), n=sum(part.n or 0 for part in parts) or None, interval=interval)

    return read


def _retrieval(evaluations: Sequence[Evaluation]) -> Iterable[Metric]:
    yield Metric("retrieval", "top-1 at the align layer", _average_retrieval, percent=True)
    yield Metric("retrieval", "top-1 at the best layer", _best_retrieval, percent=True)
    yield Metric("retrieval", "top-1 at the align layer, languages centred", _centred_retrieval, percent=True)
    yield Metric("retrieval", "xsim error at the align layer", _xsim, more_is_better=False, percent=True)
    yield Metric("retrieval", "xsim++ error into English", _xsimpp, more_is_better=False, percent=True)
    yield Metric("retrieval", "MEXA, mean over layers", _mexa, percent=True)
    for pair in shared_keys(evaluation.retrieval.pairs for evaluation in evaluations):

        def read(evaluation: Evaluation, pair: str = pair) -> Score:
            scores = evaluation.retrieval.pairs[pair]
            return Score(scores.top1, scores.n, scores.top1_interval)

        yield Metric("retrieval", f"top-1 {pair}", read, percent=True)


def _average_retrieval(evaluation: Evaluation) -> Score | None:
    scores = evaluation.retrieval
    return None if scores.average is None else Score(scores.average, evaluation.sentences, scores.average_interval)


def _best_retrieval(evaluation: Evaluation) -> Score | None:
    known = [value for value in evaluation.layers.retrieval if value is not None]
    return Score(max(known), evaluation.sentences) if known else None


def _centred_retrieval(evaluation: Evaluation) -> Score | None:
    layer, layers = evaluation.align_layer, evaluation.layers
    if layer is None or layer >= len(layers.retrieval_centred):
        return None
    value = layers.retrieval_centred[layer]
    return None if value is None else Score(value, evaluation.sentences, layers.retrieval_centred_interval[layer])


def _xsim(evaluation: Evaluation) -> Score | None:
    scores = evaluation.retrieval
    return None if scores.xsim is None else Score(scores.xsim, evaluation.sentences, scores.xsim_interval)


def _xsimpp(evaluation: Evaluation) -> Score | None:
    scores = evaluation.retrieval
    return None if scores.xsimpp is None else Score(scores.xsimpp, evaluation.sentences, scores.xsimpp_interval)


def _mexa(evaluation: Evaluation) -> Score | None:
    scores = evaluation.retrieval.mexa.values()
    return Score(sum(score.mean for score in scores) / len(scores), evaluation.sentences) if scores else None


def _representations(evaluations: Sequence[Evaluation]) -> Iterable[Metric]:
    def at_align_layer(values: Callable[[LayerScores], Sequence[float | None]]) -> Callable[[Evaluation], Score | None]:
        def read(evaluation: Evaluation) -> Score | None:
            layer, by_layer = evaluation.align_layer, values(evaluation.layers)
            value = by_layer[layer] if layer is not None and layer < len(by_layer) else None
            return None if value is None else Score(value, evaluation.layers.n)

        return read

    yield Metric("representations", "cosine of translations", at_align_layer(lambda layers: layers.similarity))
    yield Metric("representations", "cosine of unrelated sentences", at_align_layer(lambda layers: layers.unrelated), False)
    yield Metric("representations", "CKA", at_align_layer(lambda layers: layers.cka))
    yield Metric(
        "representations", "first principal component's share", at_align_layer(lambda layers: layers.first_component), False
    )
    yield Metric("representations", "language told by the last layer", _last_probe, percent=True)


def _last_probe(evaluation: Evaluation) -> Score | None:
    probes = [probe for probe in evaluation.layers.probes if probe.layer == evaluation.num_layers]
    return Score(probes[0].accuracy, probes[0].n, probes[0].interval) if probes else None


def _prediction(evaluations: Sequence[Evaluation]) -> Iterable[Metric]:
    languages = shared_keys(evaluation.perplexity for evaluation in evaluations)

    def reader(codes: Sequence[str]) -> Callable[[Evaluation], Score | None]:
        def read(evaluation: Evaluation) -> Score | None:
            parts = [evaluation.perplexity[code] for code in codes]
            known = [part.bits_per_character for part in parts if part.bits_per_character is not None]
            if not known or len(known) < len(parts):
                return None
            interval = parts[0].bits_per_character_interval if len(parts) == 1 else None
            return Score(sum(known) / len(known), n=parts[0].n, interval=interval)

        return read

    yield Metric("prediction", "bits per character", reader(languages), more_is_better=False)
    for code in languages:
        yield Metric("prediction", f"bits per character {code}", reader([code]), more_is_better=False)


def _understanding(evaluations: Sequence[Evaluation]) -> Iterable[Metric]:
    tasks = shared_keys(evaluation.understanding for evaluation in evaluations)

    def reader(names: Sequence[str]) -> Callable[[Evaluation], Score | None]:
        def read(evaluation: Evaluation) -> Score | None:
            scores = [evaluation.understanding[name] for name in names]
            if not scores:
                return None
            interval = scores[0].interval if len(scores) == 1 else None
            return Score(sum(s.score for s in scores) / len(scores), sum(s.n or 0 for s in scores) or None, interval)

        return read

    yield Metric("understanding", "mean of the tasks", reader(tasks), percent=True)
    for task in tasks:
        yield Metric("understanding", task, reader([task]), percent=True)


@dataclass(frozen=True)
class OneLanguageScore:
    """One score of texts in one language."""

    name: str
    value: Callable[[MonolingualScore], float | None]
    interval: Callable[[MonolingualScore], Interval | None]
    more_is_better: bool
    percent: bool


ONE_LANGUAGE = (
    OneLanguageScore("right language", lambda s: s.right_language, lambda s: s.right_language_interval, True, True),
    OneLanguageScore("repeated 4-grams", lambda s: s.repetition, lambda s: s.repetition_interval, False, True),
    OneLanguageScore("chrF", lambda s: s.chrf, lambda s: s.chrf_interval, True, False),
)


def _one_language(
    group: str, evaluations: Sequence[Evaluation], part: Callable[[Evaluation], Mapping[str, MonolingualScore]]
) -> Iterable[Metric]:
    languages = shared_keys(part(evaluation) for evaluation in evaluations)

    def reader(codes: Sequence[str], score: OneLanguageScore) -> Callable[[Evaluation], Score | None]:
        def read(evaluation: Evaluation) -> Score | None:
            parts = [part(evaluation)[code] for code in codes]
            known = [value for each in parts if (value := score.value(each)) is not None]
            if not known or len(known) < len(parts):
                return None
            interval = score.interval(parts[0]) if len(parts) == 1 else None
            return Score(sum(known) / len(known), sum(each.n for each in parts), interval)

        return read

    for score in ONE_LANGUAGE:
        yield Metric(group, score.name, reader(languages, score), score.more_is_better, score.percent)
    for code in languages:
        for score in ONE_LANGUAGE:
            yield Metric(group, f"{score.name} {code}", reader([code], score), score.more_is_better, score.percent)


def shared_keys(parts: Iterable[Mapping[str, object]]) -> list[str]:
    """The keys that all parts have, sorted."""
    keys = [set(part) for part in parts]
    return sorted(set.intersection(*keys)) if keys else []
