"""Translate held-out sentences and score them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from alignx_fast.config import EvaluationSettings
from alignx_fast.data.languages import check_language
from alignx_fast.data.rows import Meaning, Pair
from alignx_fast.data.spans import encode_prompts
from alignx_fast.data.templates import Template
from alignx_fast.evaluation.comet import comet_scores, find_comet
from alignx_fast.evaluation.generation import Answer, answers, check_room
from alignx_fast.evaluation.intervals import bootstrap_mean
from alignx_fast.evaluation.progress import Show
from alignx_fast.evaluation.results import DirectionTranslation, TranslatedSentence
from alignx_fast.evaluation.sample import evenly
from alignx_fast.evaluation.scoring import CorpusScorer, bleu_tokenizer, off_target, other_sentences
from alignx_fast.evaluation.spbleu import PieceTokenizer, find_spbleu, missing_note
from alignx_fast.models.adapters import Model
from alignx_fast.models.positions import learned_positions


@dataclass(frozen=True, slots=True)
class Direction:
    """What is translated in one direction."""

    source: str
    target: str
    scored: list[tuple[str, str]]
    """Source and reference."""
    shots: list[tuple[str, str]]
    """Source and translation of the examples in front of each sentence."""

    @property
    def name(self) -> str:
        return f"{self.source}-{self.target}"


def check_translation(settings: EvaluationSettings) -> None:
    """Look for the files that the scores need.

    Raises:
        UserError: spBLEU's file is not what it should be, or COMET was asked for and cannot run.
    """
    find_spbleu(settings)
    if settings.comet_model is not None:
        find_comet(settings.comet_model)


def check_prompts(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    meanings: Sequence[Meaning],
    settings: EvaluationSettings,
    languages: Sequence[str],
    template: Template,
) -> None:
    """Look whether every translation fits the model, before anything is scored.

    Raises:
        UserError: as `generation.check_room`.
    """
    chosen, _ = choose_sentences(meanings, directions(settings, languages)[0], settings)
    prompts = [prompt(template, direction, source) for direction in chosen for source, _ in direction.scored]
    if prompts and learned_positions(model) is not None:
        check_room(model, encode_prompts(tokenizer, template, prompts), settings.max_new_tokens)


def translation(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    meanings: Sequence[Meaning],
    settings: EvaluationSettings,
    languages: Sequence[str],
    template: Template,
    show: Show,
) -> tuple[dict[str, DirectionTranslation], list[str]]:
    """Scores and all translations by direction ("en-de"), and notes on what a reader must know about them.

    Raises:
        UserError: as `check_translation`.
    """
    pairs, notes = directions(settings, languages)
    chosen, reasons = choose_sentences(meanings, pairs, settings)
    notes += reasons
    if not chosen:
        return {}, notes
    spbleu = find_spbleu(settings)
    if spbleu is None:
        notes.append(missing_note(settings))
    answered = translate(model, tokenizer, chosen, settings, template, show)
    scores = {
        direction.name: score_direction(direction, answered[direction.name], settings, languages, spbleu) for direction in chosen
    }
    if settings.comet_model is not None:
        scores = with_comet(scores, settings.comet_model)
    return scores, notes + translation_notes(chosen, scores)


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


def choose_sentences(
    meanings: Sequence[Meaning], pairs: Sequence[tuple[str, str]], settings: EvaluationSettings
) -> tuple[list[Direction], list[str]]:
    """The sentences of every direction, the same with and without examples, and a note for each direction that lacks them."""
    chosen, notes = [], []
    for source, target in pairs:
        both = [(m.texts.get(source, "").strip(), m.texts.get(target, "").strip()) for m in meanings]
        both = [texts for texts in both if all(texts)]
        scored = evenly(both, settings.translation_sentences)
        # A text that is scored is no example, also where it belongs to another meaning.
        said = {text for texts in scored for text in texts}
        others = [texts for texts in both if said.isdisjoint(texts)]
        if not both:
            notes.append(f"{source}-{target} is not scored: no held-out sentence exists in both languages.")
        elif len(others) < settings.translation_shots:
            notes.append(
                f"{source}-{target} is not scored: {len(others)} held-out sentences are left for {settings.translation_shots} "
                "examples. Lower evaluation.translation_sentences or raise evaluation.sentences."
            )
        else:
            chosen.append(Direction(source, target, scored, evenly(others, settings.translation_shots)))
    return chosen, notes


def translate(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    chosen: Sequence[Direction],
    settings: EvaluationSettings,
    template: Template,
    show: Show,
) -> dict[str, list[Answer]]:
    """The model's answers by direction; sentences of all directions share batches, which are fuller that way."""
    prompts = [prompt(template, direction, source) for direction in chosen for source, _ in direction.scored]
    with show(f"translating in {len(chosen)} directions", len(prompts)) as advance:
        found = iter(
            answers(
                model,
                tokenizer,
                encode_prompts(tokenizer, template, prompts),
                max_new_tokens=settings.max_new_tokens,
                tokens_per_batch=settings.tokens_per_batch,
                end_marker=template.after_response.strip(),
                beams=settings.beams,
                advance=advance,
            )
        )
    return {direction.name: [next(found) for _ in direction.scored] for direction in chosen}


def prompt(template: Template, direction: Direction, source: str) -> str:
    """The examples in the layout of training, one after another, and the prompt of the sentence."""
    between = "\n" if template.after_response else "\n\n"
    shots = (template.render_pair(Pair(direction.source, direction.target, *texts), 0).text for texts in direction.shots)
    return "".join(shot + between for shot in shots) + template.prompt_for_pair(direction.source, direction.target, source)


def score_direction(
    direction: Direction,
    answered: Sequence[Answer],
    settings: EvaluationSettings,
    languages: Sequence[str],
    spbleu: PieceTokenizer | None = None,
) -> DirectionTranslation:
    """Scores of answers in one direction beside what wrong but fluent answers would score, with all sentences."""
    hypotheses, references = [answer.text for answer in answered], [reference for _, reference in direction.scored]
    tokenizer = bleu_tokenizer(direction.target)
    scorer = CorpusScorer(tokenizer, spbleu)
    achieved = scorer.with_intervals(hypotheses, references)
    return DirectionTranslation(
        **dict(achieved.scores),
        bleu_interval=achieved.intervals.get("bleu"),
        chrf_interval=achieved.intervals.get("chrf"),
        spbleu_interval=achieved.intervals.get("spbleu"),
        ter_interval=achieved.intervals.get("ter"),
        chance=scorer.scores(other_sentences(references), references) if len(references) > 1 else None,  # one has no other
        n=len(hypotheses),
        tokenizer=tokenizer,
        signature=achieved.signature,
        shots=len(direction.shots),
        beams=settings.beams,
        unfinished=sum(not answer.finished for answer in answered) / len(answered),
        off_target=off_target(hypotheses, direction.target, languages),
        examples=tuple(
            TranslatedSentence(source=source, reference=reference, hypothesis=hypothesis)
            for (source, reference), hypothesis in zip(direction.scored, hypotheses, strict=True)
        ),
    )


def with_comet(scores: dict[str, DirectionTranslation], checkpoint: str) -> dict[str, DirectionTranslation]:
    """The same scores with COMET beside them; all directions are scored in one go, because loading it takes long."""
    values = iter(comet_scores(checkpoint, [example for direction in scores.values() for example in direction.examples]))
    extended = {}
    for name, direction in scores.items():
        own = [next(values) for _ in direction.examples]
        extended[name] = direction.model_copy(
            update={
                "comet": sum(own) / len(own),
                "comet_interval": bootstrap_mean([own]),
                "signature": f"{direction.signature}; COMET {checkpoint}",
            }
        )
    return extended


def translation_notes(chosen: Sequence[Direction], scores: Mapping[str, DirectionTranslation]) -> list[str]:
    """What a reader must know before believing the scores."""
    notes = []
    in_characters = sorted({direction.target for direction in chosen if scores[direction.name].tokenizer == "char"})
    if in_characters:
        notes.append(f"BLEU into {', '.join(in_characters)} counts characters: compare spBLEU or chrF++ instead.")
    if not any(example.hypothesis for direction in scores.values() for example in direction.examples):
        notes.append("The model answered every translation prompt with nothing: scores of 0 mean silence here.")
    return notes
