"""All scores of one model on held-out sentences."""

import time
from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from alignx_fast.config import EvaluationSettings
from alignx_fast.data.rows import Meaning
from alignx_fast.data.templates import Template
from alignx_fast.evaluation.encode import tokenise
from alignx_fast.evaluation.perplexity import perplexity
from alignx_fast.evaluation.results import (
    DirectionTranslation,
    EvaluatedAt,
    Evaluation,
    LanguagePerplexity,
    Retrieval,
    TaskScore,
)
from alignx_fast.evaluation.sample import choose_meanings, languages_with_text, wanted_languages
from alignx_fast.evaluation.translation import check_translation, translation
from alignx_fast.evaluation.understanding import check_tasks, understanding
from alignx_fast.evaluation.undisturbed import undisturbed
from alignx_fast.evaluation.vectors import vector_scores
from alignx_fast.models.adapters import Model
from alignx_fast.models.capture import num_layers


def evaluate(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    meanings: Sequence[Meaning],
    settings: EvaluationSettings,
    *,
    evaluated_at: EvaluatedAt,
    languages: Sequence[str] | None,
    align_layer: int,
    template: Template,
    translate: bool = True,
    progress: Callable[[str], None] | None = None,
) -> Evaluation:
    """Retrieval, layer similarity, perplexity, translation, understanding tasks and a map of the sentence vectors.

    The model, its `training` flags and all random states are as before afterwards; two calls give the same result.

    Args:
        meanings: held-out sentences; at most `settings.sentences` are used, those in all languages if there are enough.
        languages: languages to score; None for all that the meanings have.
        align_layer: layer of the headline retrieval score and of the map.
        progress: called with a few words before each part.

    Raises:
        UserError: no held-out sentence has text in any of the languages, or a task or a translation score cannot run.
    """
    started, announce = time.monotonic(), progress or (lambda words: None)
    if settings.tasks:
        check_tasks(settings.tasks, settings.task_folder)
    if translate and settings.translation_sentences:
        check_translation(settings)
    wanted = wanted_languages(meanings, languages)
    meanings = choose_meanings(meanings, wanted, settings.sentences)
    codes = languages_with_text(meanings, wanted)
    with undisturbed(model):
        announce("encoding sentences")
        sentences = tokenise(tokenizer, meanings, codes)
        vectors = vector_scores(model, sentences, codes, meanings, align_layer, settings.tokens_per_batch)
        announce("measuring perplexity")
        predicted = perplexity(model, sentences, codes, settings.tokens_per_batch)
        translated: dict[str, DirectionTranslation] = {}
        translation_notes: list[str] = []
        if translate and settings.translation_sentences:
            translated, translation_notes = translation(model, tokenizer, meanings, settings, codes, template, announce)
        answered: dict[str, TaskScore] = {}
        if settings.tasks:
            announce("answering understanding tasks")
            answered = understanding(model, tokenizer, settings.tasks, settings.task_folder, settings.task_examples)
    return Evaluation(
        evaluated_at=evaluated_at,
        model=model.config.name_or_path,
        align_layer=align_layer,
        num_layers=num_layers(model),
        languages=tuple(codes),
        sentences=len(meanings),
        retrieval=vectors.retrieval,
        map=vectors.map,
        layers=vectors.layers,
        perplexity=predicted,
        translation=translated,
        understanding=answered,
        notes=(
            *(f"No held-out sentences in {code}: it is not scored." for code in wanted if code not in codes),
            *vector_notes(vectors.retrieval),
            *perplexity_notes(predicted),
            *translation_notes,
            *understanding_notes(settings.tasks, answered),
        ),
        seconds=time.monotonic() - started,
    )


def vector_notes(scores: Retrieval) -> list[str]:
    """A note where nothing could be compared."""
    return ["No retrieval or layer scores: no two languages share two held-out meanings."] if scores.average is None else []


def perplexity_notes(scores: dict[str, LanguagePerplexity]) -> list[str]:
    """A note on a model that has diverged."""
    diverged = any(score.perplexity is None for score in scores.values())
    return ["The model's predictions are not finite: it has diverged."] if diverged else []


def understanding_notes(tasks: Sequence[str], scores: dict[str, TaskScore]) -> list[str]:
    """A note where tasks were asked for and none could be scored."""
    unscored = bool(tasks) and not scores
    return ["No understanding task has an accuracy, exact match or F1: none is scored."] if unscored else []
