"""Translate held-out sentences and score them."""

from collections.abc import Callable, Sequence

from transformers import PreTrainedTokenizerBase

from alignx_fast.config import EvaluationSettings
from alignx_fast.data.languages import check_language
from alignx_fast.data.rows import Meaning
from alignx_fast.data.spans import encode_prompts
from alignx_fast.data.templates import Template
from alignx_fast.evaluation.generation import generate
from alignx_fast.evaluation.results import DirectionTranslation, TranslatedSentence
from alignx_fast.evaluation.sample import evenly
from alignx_fast.evaluation.scoring import CorpusScorer, bleu_tokenizer, off_target, other_sentences
from alignx_fast.models.adapters import Model


def directions(settings: EvaluationSettings, languages: Sequence[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """(source, target) for every direction to score, and a note for each one that is asked for and cannot be scored."""
    if settings.translation_directions is None:
        pivot = check_language(settings.pivot)
        if pivot not in languages:
            return [], [f"No translation scores: no held-out sentences in the pivot language {pivot}."]
        others = [language for language in languages if language != pivot]
        return [pair for other in others for pair in ((pivot, other), (other, pivot))], []
    known = {f"{source}-{target}": (source, target) for source in languages for target in languages if source != target}
    missing = [direction for direction in settings.translation_directions if direction not in known]
    return (
        [known[direction] for direction in settings.translation_directions if direction in known],
        [f"{direction} is not scored: there are held-out sentences in {', '.join(languages)} only." for direction in missing],
    )


def translation(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    meanings: Sequence[Meaning],
    settings: EvaluationSettings,
    languages: Sequence[str],
    template: Template,
    progress: Callable[[str], None],
) -> tuple[dict[str, DirectionTranslation], list[str]]:
    """Scores and all translations by direction ("en-de"), and notes on what a reader must know about them."""
    pairs, notes = directions(settings, languages)
    scores: dict[str, DirectionTranslation] = {}
    for source, target in pairs:
        both = [m for m in meanings if m.texts.get(source, "").strip() and m.texts.get(target, "").strip()]
        both = evenly(both, settings.translation_sentences)
        if not both:
            notes.append(f"{source}-{target} is not scored: no held-out sentence exists in both languages.")
            continue
        progress(f"translating {source}-{target}")
        sources, references = ([m.texts[code].strip() for m in both] for code in (source, target))
        prompts = [template.prompt_for_pair(source, target, text) for text in sources]
        hypotheses = generate(
            model,
            tokenizer,
            encode_prompts(tokenizer, template, prompts),
            max_new_tokens=settings.max_new_tokens,
            tokens_per_batch=settings.tokens_per_batch,
            end_marker=template.after_response.strip(),
        )
        bleu, note = bleu_tokenizer(target)
        if note and note not in notes:
            notes.append(note)
        scores[f"{source}-{target}"] = score_direction(
            sources, references, hypotheses, tokenizer=bleu, off_target=off_target(hypotheses, target, languages)
        )
    if scores and not any(example.hypothesis for direction in scores.values() for example in direction.examples):
        notes.append("The model answered every translation prompt with nothing: scores of 0 mean silence here.")
    return scores, notes


def score_direction(
    sources: Sequence[str],
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    tokenizer: str,
    off_target: float | None = None,
) -> DirectionTranslation:
    """Scores of translations in one direction beside what wrong but fluent answers would score, with all sentences."""
    scorer = CorpusScorer(tokenizer)
    achieved = scorer(hypotheses, references)
    return DirectionTranslation(
        bleu=achieved.bleu,
        chrf=achieved.chrf,
        chance=scorer(other_sentences(references), references),
        n=len(hypotheses),
        tokenizer=tokenizer,
        signature=scorer.signature,
        off_target=off_target,
        examples=tuple(
            TranslatedSentence(source=source, reference=reference, hypothesis=hypothesis)
            for source, reference, hypothesis in zip(sources, references, hypotheses, strict=True)
        ),
    )
