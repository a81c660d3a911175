"""All scores of one model on held-out sentences."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from alignx_fast.config import EvaluationSettings
from alignx_fast.data.rows import Instruction, Meaning
from alignx_fast.data.templates import Template
from alignx_fast.evaluation.encode import longest_sentence, sentence_opening, tokenise
from alignx_fast.evaluation.monolingual import continuations, instruction_answers, unfinished_notes
from alignx_fast.evaluation.parts import Parts, joined
from alignx_fast.evaluation.progress import Show, not_shown
from alignx_fast.evaluation.results import EvaluatedAt, Evaluation, LanguagePerplexity, Retrieval, TaskScore
from alignx_fast.evaluation.sample import (
    choose_meanings,
    instructions_as_text,
    languages_with_text,
    meanings_as_text,
    wanted_languages,
)
from alignx_fast.evaluation.translation import check_prompts, check_translation, translation
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
    instructions: Sequence[Instruction] = (),
    show: Show = not_shown,
    parts_file: Path | None = None,
    model_fingerprint: str = "",
) -> Evaluation:
    """Retrieval, layer similarity, perplexity, translation, understanding tasks, text in one language and a map of the sentence vectors.

    The model, its `training` flags and all random states are as before afterwards; two calls give the same result.

    Args:
        meanings: held-out sentences; at most `settings.sentences` are used, those in all languages if there are enough.
        languages: languages to score; None for all that the meanings have.
        align_layer: layer of the headline retrieval score and of the map.
        instructions: held-out instructions, answered where `settings.continuations` asks for it.
        show: shows the progress of each part.
        parts_file: keeps the parts that are done, so that an evaluation that was cut off goes on; the caller deletes it once the scores are safe.
        model_fingerprint: tells the parts of one model from those of another.

    Raises:
        UserError: no held-out sentence has text in any of the languages, or a task or a translation score cannot run.
    """
    if settings.tasks:
        check_tasks(settings)
    if translate and settings.translation_sentences:
        check_translation(settings)
    wanted = wanted_languages(meanings, languages)
    meanings, text_notes = meanings_as_text(choose_meanings(meanings, wanted, settings.sentences), tokenizer, template)
    instructions = instructions_as_text(instructions, tokenizer, template)
    codes = languages_with_text(meanings, wanted)
    if translate and settings.translation_sentences:
        check_prompts(model, tokenizer, meanings, settings, codes, template)
    inputs = [model_fingerprint, settings.model_dump(mode="json"), [asdict(meaning) for meaning in meanings], codes, align_layer]
    parts = Parts(
        parts_file,
        [*inputs, template.before_instruction, template.before_response, translate, [asdict(row) for row in instructions]],
    )

    def sentences() -> Evaluation:
        rows = tokenise(tokenizer, meanings, codes, longest_sentence(model))
        scores = vector_scores(
            model,
            tokenizer,
            rows,
            codes,
            meanings,
            align_layer=align_layer,
            pivot=settings.pivot,
            tokens_per_batch=settings.tokens_per_batch,
            show=show,
        )
        return Evaluation(
            retrieval=scores.retrieval,
            map=scores.map,
            layers=scores.layers,
            perplexity=scores.perplexity,
            notes=(*vector_notes(scores.retrieval), *perplexity_notes(scores.perplexity)),
        )

    def translations() -> Evaluation:
        scores, notes = translation(model, tokenizer, meanings, settings, codes, template, show)
        return Evaluation(translation=scores, notes=tuple(notes))

    def tasks() -> Evaluation:
        scores = understanding(model, tokenizer, settings, show)
        return Evaluation(understanding=scores, notes=tuple(understanding_notes(settings.tasks, scores)))

    def continued() -> Evaluation:
        with show("continuing sentences", len(codes)) as advance:
            scores = continuations(model, tokenizer, meanings, codes, settings, advance)
        return Evaluation(continuations=scores, notes=tuple(unfinished_notes("continuations", scores)))

    def answered() -> Evaluation:
        with show("answering instructions", len(codes)) as advance:
            scores = instruction_answers(model, tokenizer, template, instructions, codes, settings, advance)
        return Evaluation(answers=scores, notes=tuple(unfinished_notes("answers", scores)))

    todo: list[tuple[str, Callable[[], Evaluation]]] = [("sentences", sentences)]
    if translate and settings.translation_sentences:
        todo.append(("translations", translations))
    if settings.tasks:
        todo.append(("tasks", tasks))
    if settings.continuations:
        todo.append(("continuations", continued))
    if settings.continuations and instructions:
        todo.append(("answers", answered))
    with undisturbed(model):
        done = [parts.take(name, partial(_timed, score)) for name, score in todo]
    whole = Evaluation(
        evaluated_at=evaluated_at,
        model=model.config.name_or_path,
        align_layer=align_layer,
        num_layers=num_layers(model),
        languages=tuple(codes),
        sentences=len(meanings),
        opening_token=str(tokenizer.convert_ids_to_tokens(sentence_opening(tokenizer))),
        notes=(*text_notes, *(f"No held-out sentences in {code}: it is not scored." for code in wanted if code not in codes)),
    )
    return joined(whole, done)


def _timed(score: Callable[[], Evaluation]) -> Evaluation:
    started = time.monotonic()
    return score().model_copy(update={"seconds": time.monotonic() - started})


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
