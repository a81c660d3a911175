"""The typed scores: their JSON form, what older files may lack, and what they import."""

import json
import subprocess
import sys

import pytest
from pydantic import ValidationError

from alignx_fast.evaluation.results import DirectionTranslation, EvaluatedAt, Evaluation, LayerScores, TextScores

KEYS = [
    "when",
    "model",
    "align_layer",
    "num_layers",
    "languages",
    "sentences",
    "opening_token",
    "retrieval",
    "map",
    "layers",
    "perplexity",
    "translation",
    "understanding",
    "continuations",
    "answers",
    "notes",
    "seconds",
]


def test_the_keys_on_disk_and_their_order() -> None:
    direction = DirectionTranslation(
        bleu=1.5, chrf=20.0, chance=TextScores(bleu=0.5, chrf=9.0), n=3, tokenizer="13a", signature="s"
    )
    tree = Evaluation(evaluated_at=EvaluatedAt.AFTER, translation={"en-de": direction}).to_json()
    assert list(tree) == KEYS
    assert tree["when"] == "after"
    written = {key: value for key, value in tree["translation"]["en-de"].items() if value is not None}
    assert written == {
        "bleu": 1.5,
        "chrf++": 20.0,
        "chance": {"bleu": 0.5, "chrf++": 9.0, "spbleu": None, "ter": None},
        "n": 3,
        "tokenizer": "13a",
        "signature": "s",
        "shots": 0,
        "beams": 1,
        "examples": [],
    }
    assert list(tree["translation"]["en-de"])[:4] == ["bleu", "chrf++", "spbleu", "ter"]


def test_what_is_written_is_read_again() -> None:
    layers = LayerScores(similarity=(0.1, None), unrelated=(0.0, 0.2))
    scores = Evaluation(evaluated_at=EvaluatedAt.BEFORE, languages=("de", "en"), layers=layers, notes=("a note",))
    assert Evaluation.from_json(json.loads(json.dumps(scores.to_json()))) == scores


def test_translation_scores_of_an_older_version_are_read() -> None:
    tree = {"bleu": 1.0, "chrf++": 20.0, "chance": {"bleu": 0.5, "chrf++": 9.0}, "n": 3, "tokenizer": "flores200"}
    scores = Evaluation.from_json({"translation": {"en-th": tree}}).translation["en-th"]
    assert (scores.chrf, scores.spbleu, scores.unfinished, scores.shots, scores.beams) == (20.0, None, None, 0, 1)


def test_missing_null_and_further_fields() -> None:
    assert Evaluation.from_json({}) == Evaluation()
    assert Evaluation.from_json(dict.fromkeys(KEYS) | {"of_a_later_version": 1}) == Evaluation()


@pytest.mark.parametrize("value", [[], "after", {"translation": {"en-de": {"bleu": 1.0}}}, {"layers": {"cka": "high"}}])
def test_other_forms_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="validation error"):
        Evaluation.from_json(value)


def test_scores_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Evaluation().model = "another"  # type: ignore[misc]


def test_reading_scores_needs_no_torch() -> None:
    code = (
        "import sys, alignx_fast.evaluation.results; print([m for m in ('torch', 'transformers', 'numpy') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"
