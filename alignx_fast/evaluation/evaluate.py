"""All scores of one model on held-out sentences, as one JSON-ready dict."""

import time
from collections.abc import Callable, Sequence

import torch
from transformers import PreTrainedTokenizerBase

from alignx_fast.config import EvaluationSettings
from alignx_fast.data.languages import check_language
from alignx_fast.data.rows import Meaning
from alignx_fast.data.templates import Template
from alignx_fast.errors import UserError
from alignx_fast.evaluation.encode import Sentence, layer_vectors, present, tokenise
from alignx_fast.evaluation.layers import similarity
from alignx_fast.evaluation.perplexity import perplexity
from alignx_fast.evaluation.projection import sentence_map
from alignx_fast.evaluation.retrieval import retrieval
from alignx_fast.evaluation.sample import choose_meanings
from alignx_fast.evaluation.translation import translation
from alignx_fast.evaluation.understanding import check_tasks, understanding
from alignx_fast.evaluation.undisturbed import undisturbed
from alignx_fast.models.adapters import Model
from alignx_fast.models.capture import num_layers


def evaluate(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    meanings: Sequence[Meaning],
    settings: EvaluationSettings,
    *,
    when: str,
    languages: Sequence[str] | None,
    align_layer: int,
    template: Template,
    translate: bool = True,
    progress: Callable[[str], None] | None = None,
) -> dict:
    """Retrieval, layer similarity, perplexity, translation, understanding tasks and a map of the sentence vectors.

    The model, its `training` flags and all random states are as before afterwards; two calls give the same result.

    Args:
        meanings: held-out sentences; at most `settings.sentences` are used, those in all languages if there are enough.
        when: name of the moment: before, ntp_only, after_align or after.
        languages: languages to score; None for all that the meanings have.
        align_layer: layer of the headline retrieval score and of the map.
        progress: called with a few words before each part.

    Raises:
        UserError: no held-out sentence has text in any of the languages, or a task cannot run.
    """
    started, say = time.monotonic(), progress or (lambda words: None)
    if settings.tasks:
        check_tasks(settings.tasks, settings.task_folder)
    asked = (
        list(dict.fromkeys(map(check_language, languages)))
        if languages is not None
        else sorted({code for meaning in meanings for code in meaning.texts})
    )
    meanings = choose_meanings(meanings, asked, settings.sentences)
    codes = [code for code in asked if any(meaning.texts.get(code, "").strip() for meaning in meanings)]
    if not codes:
        raise UserError(
            f"There are no held-out sentences in {', '.join(asked) or 'any language'} to evaluate on: "
            "give some with `data.evaluation` or switch evaluation off with `evaluation.enabled: false`."
        )
    notes = [f"No held-out sentences in {code}: it is not scored." for code in asked if code not in codes]

    with undisturbed(model):
        say("encoding sentences")
        sentences = tokenise(tokenizer, meanings, codes)
        result = {
            "when": when,
            "model": model.config.name_or_path,
            "align_layer": align_layer,
            "num_layers": num_layers(model),
            "languages": codes,
            "sentences": len(meanings),
            **representations(model, sentences, codes, meanings, align_layer, settings.tokens_per_batch),
        }
        if result["retrieval"]["average"] is None:
            notes.append("No retrieval or layer scores: no two languages share two held-out meanings.")
        say("measuring perplexity")
        result["perplexity"] = perplexity(model, sentences, codes, settings.tokens_per_batch)
        if any(score["perplexity"] is None for score in result["perplexity"].values()):
            notes.append("The model's predictions are not finite: it has diverged.")
        result["translation"] = {}
        if translate and settings.translation_sentences:
            result["translation"], words = translation(model, tokenizer, meanings, settings, codes, template, say)
            notes += words
        result["understanding"] = {}
        if settings.tasks:
            say("answering understanding tasks")
            asked_of = (settings.tasks, settings.task_folder, settings.task_examples)
            result["understanding"] = understanding(model, tokenizer, *asked_of)
            if not result["understanding"]:
                notes.append("No understanding task has an accuracy, exact match or F1: none is scored.")
    return result | {"notes": notes, "seconds": time.monotonic() - started}


def representations(
    model: Model,
    sentences: Sequence[Sentence],
    languages: Sequence[str],
    meanings: Sequence[Meaning],
    align_layer: int,
    tokens_per_batch: int,
) -> dict:
    """The scores that come from sentence vectors: {"retrieval", "layers", "map"}; layer scores have num_layers + 1 entries."""
    has_LN = present(sentences, len(languages), len(meanings))
    scores: dict[str, list] = {"similarity": [], "unrelated": [], "cka": [], "retrieval": []}
    found: dict = {}
    for layer, vectors_LND in layer_vectors(model, sentences, has_LN, range(num_layers(model) + 1), tokens_per_batch):
        vectors_LND = torch.nan_to_num(vectors_LND)  # a diverged model scores as bad as constant vectors, and is reported
        ranked = retrieval(vectors_LND, has_LN, languages)
        for name, value in (similarity(vectors_LND, has_LN) | {"retrieval": ranked["average"]}).items():
            scores[name].append(value)
        if layer == align_layer:
            found = {"retrieval": ranked, "map": sentence_map(vectors_LND, has_LN, languages, meanings, layer)}
    return found | {"layers": scores}
