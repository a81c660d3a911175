"""Text in one language: continuations of held-out sentences, and answers to held-out instructions."""

import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from sacrebleu import CHRF
from transformers import PreTrainedTokenizerBase

from alignx_fast.config import EvaluationSettings
from alignx_fast.data.rows import Instruction, Meaning
from alignx_fast.data.spans import encode_prompts
from alignx_fast.data.templates import Template
from alignx_fast.evaluation.encode import encode, longest_sentence
from alignx_fast.evaluation.generation import Answer, answers
from alignx_fast.evaluation.intervals import bootstrap_mean
from alignx_fast.evaluation.progress import Advance
from alignx_fast.evaluation.results import GeneratedText, MonolingualScore
from alignx_fast.evaluation.sample import evenly
from alignx_fast.evaluation.scoring import BLANKLESS, off_target, other_sentences
from alignx_fast.models.adapters import Model

SHORTEST = 8
"""Words (characters where there are no blanks) of a sentence that is long enough to be cut in two."""
GRAM = 4
"""Words in a row whose repetition is counted."""
DRIFT = "en"
"""The language that models fall into: it is told apart from the others also where it is not evaluated."""


@dataclass(frozen=True, slots=True)
class Beginning:
    """What a model goes on from, and how the data goes on."""

    prompt: str
    reference: str


def continuations(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    meanings: Sequence[Meaning],
    languages: Sequence[str],
    settings: EvaluationSettings,
    advance: Advance,
) -> dict[str, MonolingualScore]:
    """Scores by language of what the model says after the first halves of held-out sentences.

    chrF compares as many characters as the second half has: a model need not know that the sentence is to end there.

    Args:
        settings: at most `continuations` sentences a language are continued, by at most `max_new_tokens` tokens.
        advance: called once a language.
    """
    scores: dict[str, MonolingualScore] = {}
    for language in languages:
        halved = [halves(meaning.texts.get(language, ""), language) for meaning in meanings]
        chosen = choose((half for half in halved if half), language, languages, settings.continuations)
        ids = [
            example["input_ids"]
            for example in encode(tokenizer, [beginning.prompt for beginning in chosen], longest_sentence(model))
        ]
        said = _answers(model, tokenizer, ids, settings)
        if chosen:
            compared = [answer.text[: len(beginning.reference)] for answer, beginning in zip(said, chosen, strict=True)]
            scores[language] = score_texts(chosen, said, compared, language, languages)
        advance(1)
    return scores


def instruction_answers(
    model: Model,
    tokenizer: PreTrainedTokenizerBase,
    template: Template,
    instructions: Sequence[Instruction],
    languages: Sequence[str],
    settings: EvaluationSettings,
    advance: Advance,
) -> dict[str, MonolingualScore]:
    """Scores by language of the model's answers to held-out instructions, at most `settings.continuations` a language."""
    scores: dict[str, MonolingualScore] = {}
    for language in languages:
        rows = [row for row in instructions if row.lang == language]
        chosen = choose((beginning_of(row, template) for row in rows), language, languages, settings.continuations)
        ids = encode_prompts(tokenizer, template, [beginning.prompt for beginning in chosen]) if chosen else []
        said = _answers(model, tokenizer, ids, settings, end_marker=template.after_response.strip())
        if chosen:
            scores[language] = score_texts(chosen, said, [answer.text for answer in said], language, languages)
        advance(1)
    return scores


def halves(sentence: str, language: str) -> Beginning | None:
    """A sentence cut in two between words, or between characters where there are no blanks; None of a short one."""
    units, blank = units_of(sentence, language)
    if len(units) < SHORTEST:
        return None
    middle = len(units) // 2
    while middle < len(units) - 1 and unicodedata.category(units[middle][0]).startswith("M"):
        middle += 1  # a vowel sign stays with its letter
    return Beginning(blank.join(units[:middle]), blank.join(units[middle:]))


def units_of(text: str, language: str) -> tuple[list[str], str]:
    """Words and the blank between them, or characters and nothing between them where a language is written without blanks."""
    if language.split("-")[0] in BLANKLESS | {"zh", "yue"}:
        return list(text.strip()), ""
    return text.split(), " "


def beginning_of(row: Instruction, template: Template) -> Beginning:
    """The prompt of an instruction in the layout of training, and the answer of the data."""
    rendered = template.render_instruction(row)
    return Beginning(rendered.text[: rendered.prompt_end].rstrip(" "), row.output.strip())


def choose(beginnings: Iterable[Beginning], language: str, languages: Sequence[str], count: int) -> list[Beginning]:
    """At most `count` of them, from all over.

    Those whose reference is not taken for its own language are left out: numbers, names, labels, and sentences that a language identifier
    gets wrong.
    """
    return evenly([each for each in beginnings if in_language(each.reference, language, languages) is not False], count)


def in_language(text: str, language: str, languages: Sequence[str]) -> bool | None:
    """Whether py3langid takes a text for its language, among those evaluated and English; None where that cannot be told.

    A text without letters is in no language.
    """
    share = off_target([text if any(map(str.isalpha, text)) else ""], language, [*languages, DRIFT])
    return None if share is None else share == 0.0


def score_texts(
    beginnings: Sequence[Beginning], said: Sequence[Answer], compared: Sequence[str], language: str, languages: Sequence[str]
) -> MonolingualScore:
    """Scores of the texts said after some beginnings, with all texts.

    Args:
        compared: what of each text is compared with its reference.
    """
    references = [beginning.reference for beginning in beginnings]
    right = [known for answer in said if (known := in_language(answer.text, language, languages)) is not None]
    repeated = [repetition(answer.text, language) for answer in said]
    chrf = sentence_chrf(compared, references)
    return MonolingualScore(
        n=len(said),
        right_language=mean(right),
        right_language_interval=bootstrap_mean([right]),
        repetition=mean(repeated),
        repetition_interval=bootstrap_mean([repeated]),
        chrf=mean(chrf),
        chrf_interval=bootstrap_mean([chrf]),
        chrf_chance=mean(sentence_chrf(other_sentences(references), references)) if len(references) > 1 else None,
        unfinished=mean([not answer.finished for answer in said]),
        examples=tuple(
            GeneratedText(prompt=beginning.prompt, reference=beginning.reference, text=answer.text)
            for beginning, answer in zip(beginnings, said, strict=True)
        ),
    )


def repetition(text: str, language: str) -> float:
    """Share of a text's 4-grams that stood in it before (seq-rep-4, Welleck et al. 2020).

    Over words, or over characters where a language has no blanks or the text has less than four words.
    """
    units, _ = units_of(text, language)
    if len(units) < GRAM:
        units = list(text)
    grams = [tuple(units[at : at + GRAM]) for at in range(len(units) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def sentence_chrf(texts: Sequence[str], references: Sequence[str]) -> list[float]:
    """sacrebleu's chrF of every text, 0 to 100."""
    metric = CHRF()
    return [metric.sentence_score(text, [reference]).score for text, reference in zip(texts, references, strict=True)]


def mean(values: Sequence[float]) -> float | None:
    """Arithmetic mean; None without values."""
    return sum(values) / len(values) if values else None


def unfinished_notes(title: str, scores: Mapping[str, MonolingualScore]) -> list[str]:
    """A note where most texts were cut at the longest length."""
    endless = [language for language, score in scores.items() if (score.unfinished or 0.0) > 0.5]
    return [f"Most {title} in {', '.join(endless)} did not end within evaluation.max_new_tokens."] if endless else []


def _answers(
    model: Model, tokenizer: PreTrainedTokenizerBase, ids: list[list[int]], settings: EvaluationSettings, end_marker: str = ""
) -> list[Answer]:
    return answers(
        model,
        tokenizer,
        ids,
        max_new_tokens=settings.max_new_tokens,
        tokens_per_batch=settings.tokens_per_batch,
        end_marker=end_marker,
    )
