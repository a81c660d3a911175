"""Text in one language: halves of sentences, scores of given texts, and a tiny model that goes on."""

import pytest

from alignx_fast.config import EvaluationSettings, Settings
from alignx_fast.data.gather import gather, held_out_instructions
from alignx_fast.data.rows import Instruction, Meaning
from alignx_fast.data.templates import Template
from alignx_fast.evaluation import monolingual
from alignx_fast.evaluation.evaluate import evaluate
from alignx_fast.evaluation.generation import Answer
from alignx_fast.evaluation.monolingual import (
    Beginning,
    choose,
    continuations,
    halves,
    in_language,
    repetition,
    score_texts,
    unfinished_notes,
)
from alignx_fast.evaluation.results import EvaluatedAt, Evaluation

ENGLISH = "The weather in the mountains was cold and very windy this morning."
GERMAN = "Das Wetter in den Bergen war heute Morgen kalt und sehr windig."


def test_a_sentence_is_cut_between_words_or_characters():
    assert halves("one two three four five six seven eight nine", "en") == Beginning(
        "one two three four", "five six seven eight nine"
    )
    assert halves("one two three", "en") is None
    assert halves("", "zh") is None
    assert halves("该物品用气泡包装纸包着", "zh") == Beginning("该物品用气", "泡包装纸包着")
    cut = halves("กกกกั้กกก", "th")  # the fifth and the sixth character stand above the fourth
    assert cut == Beginning("กกกกั้", "กกก")


def test_repetition_is_the_share_of_four_words_that_were_said_before():
    assert repetition("a b c d", "en") == 0.0
    assert repetition("a b c", "en") == repetition("", "en") == 0.0
    assert repetition("######## :", "en") == pytest.approx(4 / 7)  # one word: characters are counted
    assert repetition("a a a a a a", "en") == pytest.approx(2 / 3)  # three times the same four
    assert repetition("a b c d a b c d", "en") == pytest.approx(1 / 5)
    assert repetition("好好好好好", "zh") == pytest.approx(1 / 2)


def test_references_in_another_language_are_left_out():
    pytest.importorskip("py3langid")
    rows = [Beginning("p", text) for text in (GERMAN, ENGLISH, "", GERMAN + " Ja.")]
    assert [each.reference for each in choose(rows, "de", ["de", "en"], 5)] == [GERMAN, GERMAN + " Ja."]
    assert len(choose(rows, "de", ["de", "en"], 1)) == 1
    assert len(choose(rows, "xx", ["xx", "en"], 5)) == 4  # a language that the identifier does not know


def test_a_text_without_letters_is_in_no_language():
    pytest.importorskip("py3langid")
    assert [in_language(text, "de", ["de", "fr"]) for text in (GERMAN, ENGLISH, "#### 12 :", "")] == [True, False, False, False]
    assert in_language(GERMAN, "xx", ["de"]) is None


def test_scores_of_given_texts():
    pytest.importorskip("py3langid")
    beginnings = [Beginning("Das Wetter", "in den Bergen war heute kalt"), Beginning("Wir gingen", "gestern Abend nach Hause")]
    said = [Answer(GERMAN, finished=True), Answer(ENGLISH, finished=False)]
    score = score_texts(beginnings, said, ["in den Bergen war heute kalt", ""], "de", ["de"])
    assert (score.n, score.right_language, score.unfinished, score.repetition) == (2, 0.5, 0.5, 0.0)
    assert score.chrf == pytest.approx(50.0)
    assert 0 < score.chrf_chance < 50
    assert score.right_language_interval.low == 0.0
    assert score.chrf_interval.high == pytest.approx(100.0)
    assert [example.text for example in score.examples] == [GERMAN, ENGLISH]
    assert unfinished_notes("texts", {"de": score}) == []
    endless = score.model_copy(update={"unfinished": 0.9})
    assert unfinished_notes("texts", {"de": score, "sw": endless}) == [
        "Most texts in sw did not end within evaluation.max_new_tokens."
    ]


def test_continuations_are_compared_as_far_as_the_sentence_goes(model, tokenizer, monkeypatch):
    meanings = [Meaning("1", {"de": GERMAN, "en": "too short"}), Meaning("2", {"de": "Ganz " + GERMAN})]
    asked = []

    def answers(model, tokenizer, prompts, **options):
        asked.extend(tokenizer.decode(ids, skip_special_tokens=True) for ids in prompts)
        return [Answer("war heute Morgen kalt und sehr windig. Und so ging es weiter.", finished=False) for _ in prompts]

    monkeypatch.setattr(monolingual, "answers", answers)
    done: list[int] = []
    scores = continuations(model, tokenizer, meanings, ["de", "en"], EvaluationSettings(continuations=5), done.append)
    assert asked == ["Das Wetter in den Bergen war", "Ganz Das Wetter in den Bergen"]
    assert list(scores) == ["de"]
    assert scores["de"].n == 2
    assert scores["de"].examples[1].reference == "war heute Morgen kalt und sehr windig."
    assert scores["de"].unfinished == 1.0
    assert scores["de"].chrf > 80
    assert done == [1, 1]


def test_a_whole_evaluation_with_continuations_and_answers(model, tokenizer):
    texts = {"de": GERMAN, "en": ENGLISH}
    meanings = [Meaning(str(i), {code: f"{text} {i}" for code, text in texts.items()}) for i in range(4)]
    rows = [Instruction("Sag etwas.", str(i), GERMAN, "de") for i in range(3)] + [Instruction("Say.", "", ENGLISH, None)]
    settings = EvaluationSettings(sentences=4, continuations=2, max_new_tokens=6, tokens_per_batch=64)
    options = {"languages": None, "align_layer": 2, "template": Template.alpaca(), "translate": False, "instructions": rows}
    scores = evaluate(model, tokenizer, meanings, settings, evaluated_at=EvaluatedAt.NOW, **options)
    assert set(scores.continuations) == {"de", "en"}
    assert set(scores.answers) == {"de"}
    assert scores.continuations["en"].n == scores.answers["de"].n == 2
    assert scores.answers["de"].examples[0].prompt.endswith("### Response:\n")
    assert Evaluation.from_json(scores.to_json()) == scores
    again = evaluate(model, tokenizer, meanings, settings, evaluated_at=EvaluatedAt.NOW, **options)
    assert again.continuations == scores.continuations


def test_instructions_that_stage_2_holds_out():
    settings = Settings.model_validate({"data": {"languages": ["en", "de"]}})
    held_out, gathered = held_out_instructions(settings), gather(settings, "instruct")
    assert held_out
    assert all(row in gathered.dev.rows and row not in gathered.train.rows for row in held_out)
    assert held_out_instructions(Settings(stages=["align"])) == []
