"""Paired tests: which sentences and metrics, and what is refused. The numbers are held against sacrebleu in test_sacrebleu.py."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from support.translations import CHINESE, GERMAN, worsened

from alignx_fast.config import EvaluationSettings
from alignx_fast.errors import UserError
from alignx_fast.evaluation.results import DirectionTranslation, PairedDifference, TranslatedSentence
from alignx_fast.evaluation.significance import ALL_DIRECTIONS, Method, paired_tests
from alignx_fast.evaluation.spbleu import find_spbleu


def evaluated(hypotheses: Sequence[str], references: Sequence[str], tokenizer: str = "13a") -> DirectionTranslation:
    examples = [
        TranslatedSentence(source=reference.upper(), reference=reference, hypothesis=hypothesis)
        for hypothesis, reference in zip(hypotheses, references, strict=True)
    ]
    return DirectionTranslation(bleu=0, chrf=0, tokenizer=tokenizer, examples=tuple(examples))


def metrics(tests: Sequence[PairedDifference]) -> set[str]:
    return {test.metric for test in tests}


@pytest.mark.parametrize("method", Method)
def test_a_clear_gain_is_significant_and_none_is_not(method: Method) -> None:
    bad, good = (evaluated(worsened(GERMAN, share), GERMAN) for share in (0.5, 0.0))
    gain = paired_tests({"en-de": bad}, {"en-de": good}, method, trials=500)["en-de"]
    assert all(test.p_value < 0.01 for test in gain)
    assert {test.metric: test.difference > 0 for test in gain} == {"BLEU": True, "chrF++": True, "TER": False}
    same = paired_tests({"en-de": bad}, {"en-de": bad}, method, trials=500)["en-de"]
    assert all(test.difference == 0 for test in same)
    assert all(test.p_value > 0.3 for test in same)


def test_two_calls_agree_and_the_result_can_be_written() -> None:
    bad, good = ({"en-de": evaluated(worsened(GERMAN, share), GERMAN)} for share in (0.3, 0.2))
    first, second = (paired_tests(bad, good, Method.BOOTSTRAP, trials=200)["en-de"] for _ in range(2))
    assert first == second
    assert PairedDifference.model_validate_json(first[0].model_dump_json()) == first[0]


def test_what_is_tokenised_differently_is_not_joined(pieces: Path) -> None:
    german, chinese = (
        evaluated(worsened(texts, 0.3), texts, tokenizer) for texts, tokenizer in ((GERMAN, "13a"), (CHINESE, "zh"))
    )
    both = {"en-de": german, "en-zh": chinese}
    settings = EvaluationSettings(spbleu_tokenizer="flores101", spbleu_model=str(pieces))
    tests = paired_tests(both, both, Method.BOOTSTRAP, spbleu=find_spbleu(settings), trials=50)
    assert metrics(tests["en-zh"]) == {"BLEU", "chrF++", "spBLEU", "TER"}
    assert metrics(tests[ALL_DIRECTIONS]) == {"chrF++", "spBLEU"}
    assert tests[ALL_DIRECTIONS][0].n == 20


def test_tokenizers_of_an_older_version_are_left_out_rather_than_downloaded() -> None:
    old = {"en-th": evaluated(["สวัสดีครับ"], ["สวัสดีค่ะ"], "flores200")}
    assert metrics(paired_tests(old, old, Method.BOOTSTRAP, trials=10)["en-th"]) == {"chrF++"}


def test_other_sentences_are_refused() -> None:
    whole, part = evaluated(GERMAN, GERMAN), evaluated(GERMAN[:5], GERMAN[:5])
    with pytest.raises(UserError, match=r"same sentences in en-de \(10 and 5\)"):
        paired_tests({"en-de": whole}, {"en-de": part}, Method.BOOTSTRAP)
    with pytest.raises(UserError, match="same sentences in en-de"):
        paired_tests({"en-de": whole}, {"en-de": evaluated(GERMAN[::-1], GERMAN[::-1])}, Method.BOOTSTRAP)
    with pytest.raises(UserError, match=r"No direction was translated by both models \(en-de and en-zh\)"):
        paired_tests({"en-de": whole}, {"en-zh": whole}, Method.BOOTSTRAP)
    empty = DirectionTranslation(bleu=0, chrf=0)
    with pytest.raises(UserError, match=r"\(0 and 0\)"):
        paired_tests({"en-de": empty}, {"en-de": empty}, Method.BOOTSTRAP)
