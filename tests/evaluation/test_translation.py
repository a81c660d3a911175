"""Translation: which sentences, which prompts, what is counted, and COMET by a stand-in for its command."""

import os
import stat
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.translations import CHINESE, GERMAN, worsened

from alignx_fast.config import EvaluationSettings
from alignx_fast.data.rows import Meaning
from alignx_fast.data.spans import encode_prompts
from alignx_fast.data.templates import Template
from alignx_fast.errors import UserError
from alignx_fast.evaluation import scoring, spbleu
from alignx_fast.evaluation.evaluate import evaluate
from alignx_fast.evaluation.generation import Answer, answers
from alignx_fast.evaluation.progress import not_shown
from alignx_fast.evaluation.results import EvaluatedAt
from alignx_fast.evaluation.scoring import CorpusScorer, bleu_tokenizer
from alignx_fast.evaluation.spbleu import find_spbleu
from alignx_fast.evaluation.translation import (
    Direction,
    choose_sentences,
    directions,
    prompt,
    score_direction,
    translation,
)

ENGLISH = [f"Sentence number {i} is about {word}." for i, word in enumerate(["trains", "gardens", "bread", "rain", "glasses"])]


@pytest.fixture(autouse=True)
def _no_local_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What lies in the home folder of whoever runs the tests does not count."""
    monkeypatch.setattr(spbleu, "SACREBLEU_DIR", str(tmp_path / "sacrebleu"))


def direction(target: str, references: list[str]) -> Direction:
    return Direction("en", target, [(f"source {i}", reference) for i, reference in enumerate(references)], [])


def said(texts: list[str]) -> list[Answer]:
    return [Answer(text, finished=True) for text in texts]


def test_off_target():
    pytest.importorskip("py3langid")
    german = "Das Wetter ist heute sehr schön, und wir gehen spazieren."
    english = "The weather is very nice today, and we are going for a walk."
    assert scoring.off_target([german, english, "", german], "de", ["de", "en"]) == 0.5
    assert scoring.off_target([english], "en", ["en", "fr"]) == 0  # another set of languages than before
    assert scoring.off_target([german], "tlh", ["de", "en", "tlh"]) is None
    assert scoring.off_target([], "de", ["de", "en"]) is None


def test_directions():
    pairs, notes = directions(EvaluationSettings(), ["de", "en", "zh-Hant"])
    assert pairs == [("en", "de"), ("de", "en"), ("en", "zh-Hant"), ("zh-Hant", "en")]
    assert notes == []
    pairs, notes = directions(EvaluationSettings(), ["de", "fr"])
    assert pairs == []
    assert "pivot language en" in notes[0]
    pairs, notes = directions(EvaluationSettings(translation_directions=["de-zh-Hant", "de-xx"]), ["de", "zh-Hant"])
    assert pairs == [("de", "zh-Hant")]
    assert "de-xx" in notes[0]


def test_bleu_tokenizers():
    codes = ("de", "zh-Hant", "yue", "ja", "th")
    assert [bleu_tokenizer(code) for code in codes] == ["13a", "zh", "zh", "char", "char"]


def test_perfect_translations_score_best_and_chance_is_low(pieces):
    settings = EvaluationSettings(spbleu_tokenizer="flores101", spbleu_model=str(pieces))
    scores = score_direction(direction("de", GERMAN), said(GERMAN), settings, ["de", "en"], find_spbleu(settings))
    assert (scores.bleu, scores.chrf, scores.spbleu, scores.ter) == pytest.approx((100, 100, 100, 0))
    assert scores.chance.bleu < 5
    assert scores.chance.ter > 50
    assert scores.bleu_interval.low == scores.bleu_interval.high == pytest.approx(100)
    assert scores.n == 10
    assert "BLEU nrefs:1|bs:1000|seed:12345|case:mixed|eff:no|tok:13a" in scores.signature
    assert "nw:2" in scores.signature
    assert "tok:flores101" in scores.signature
    assert f"sha256:{find_spbleu(settings).sha256} (recorded, not verified)" in scores.signature
    assert scores.comet is None


def test_intervals_hold_the_score_and_narrow_with_more_sentences():
    few, many = (CorpusScorer("13a").with_intervals(worsened(GERMAN, 0.2) * k, GERMAN * k) for k in (1, 16))
    assert set(few.intervals) == {"bleu", "chrf", "ter"}
    for name, interval in few.intervals.items():
        assert interval.low < getattr(few.scores, name) < interval.high
        narrow = many.intervals[name]
        assert narrow.high - narrow.low < 0.4 * (interval.high - interval.low)


def test_languages_without_blanks_are_scored_in_characters():
    chinese = score_direction(direction("zh", CHINESE), said(worsened(CHINESE, 0.1)), EvaluationSettings(), ["en", "zh"])
    assert 0 < chinese.ter < 30
    assert 30 < chinese.bleu < 100
    thai = score_direction(direction("th", ["สวัสดีครับ"]), said(["สวัสดีค่ะ"]), EvaluationSettings(), ["en", "th"])
    assert thai.bleu > 0
    assert thai.ter is None
    assert thai.ter_interval is None


def test_empty_answers_and_answers_of_several_lines():
    scorer = CorpusScorer("13a")
    nothing = scorer.with_intervals([""] * 10, GERMAN)
    assert (nothing.scores.bleu, nothing.scores.chrf, nothing.scores.ter) == pytest.approx((0, 0, 100))
    broken = [text.replace(" ", "\n", 1).replace("-", "-\n") for text in GERMAN]
    assert scorer.scores(broken, GERMAN).bleu == scorer.scores([t.replace("-", "- ") for t in GERMAN], GERMAN).bleu


def test_examples_are_not_scored_and_change_nothing_of_what_is():
    meanings = [Meaning(str(i), {"en": text, "de": GERMAN[i]}) for i, text in enumerate(ENGLISH)]
    meanings.append(Meaning("again", {"en": ENGLISH[0], "de": "Noch einmal."}))
    settings = EvaluationSettings(translation_sentences=3)
    (zero,), _ = choose_sentences(meanings, [("en", "de")], settings)
    few_shot = settings.model_copy(update={"translation_shots": 2})
    (few,), notes = choose_sentences(meanings, [("en", "de")], few_shot)
    assert notes == []
    assert few.scored == zero.scored
    assert (len(zero.shots), len(few.shots)) == (0, 2)
    scored = {text for texts in few.scored for text in texts}
    assert all(scored.isdisjoint(texts) for texts in few.shots)
    chosen, notes = choose_sentences(meanings, [("en", "de")], settings.model_copy(update={"translation_shots": 3}))
    assert chosen == []
    assert "en-de is not scored: 2 held-out sentences are left for 3 examples" in notes[0]


def test_examples_stand_in_the_layout_of_training():
    few = Direction("en", "de", [], [("One.", "Eins."), ("Two.", "Zwei.")])
    zero = Direction("en", "de", [], [])
    own = prompt(Template.alpaca(), zero, "Three.")
    text = prompt(Template.alpaca(), few, "Three.")
    assert text.endswith(own)
    assert text.removesuffix(own) == "".join(
        own.replace("Three.", source) + answer + "\n\n" for source, answer in (("One.", "Eins."), ("Two.", "Zwei."))
    )
    chat = Template("chat", "<u>", "\n\n", "<a>", "</t>")
    text = prompt(chat, few, "Three.")
    assert text.count("<u>Translate the following text from English to German.") == 3
    assert "<a>Eins.</t>\n<u>" in text
    assert text.endswith("Three.<a>")


def test_directions_share_batches_and_keep_their_own_answers(model, tokenizer, meanings):
    model.eval()
    settings = EvaluationSettings(translation_sentences=5, max_new_tokens=6, tokens_per_batch=10000)
    shown, done, sizes = [], [], []

    @contextmanager
    def show(title, total):
        shown.append((title, total))
        yield done.append

    own = model.generate
    model.generate = lambda **arguments: sizes.append(len(arguments["input_ids"])) or own(**arguments)
    scores, notes = translation(model, tokenizer, meanings, settings, ["de", "en", "sw"], Template.alpaca(), show)
    assert sum(sizes) == 20
    assert max(sizes) > 5
    assert shown == [("translating in 4 directions", 20)]
    assert sum(done) == 20
    assert any("No spBLEU" in note and "chrF++" in note for note in notes)
    assert all(scored.unfinished > 0.5 for scored in scores.values())  # it hardly knows an end
    for name, scored in scores.items():
        source, target = name.split("-")
        prompts = [Template.alpaca().prompt_for_pair(source, target, example.source) for example in scored.examples]
        ids = encode_prompts(tokenizer, Template.alpaca(), prompts)
        alone = answers(model, tokenizer, ids, max_new_tokens=6, tokens_per_batch=10000)
        assert [example.hypothesis for example in scored.examples] == [answer.text for answer in alone]
        assert scored.unfinished == sum(not answer.finished for answer in alone) / 5
        assert (scored.shots, scored.beams) == (0, 1)


def test_few_shot_beam_search_is_recorded(model, tokenizer, meanings):
    settings = EvaluationSettings(translation_sentences=3, translation_shots=2, beams=3, max_new_tokens=4)
    scores, _ = translation(model, tokenizer, meanings, settings, ["de", "en"], Template.alpaca(), not_shown)
    assert {(scored.shots, scored.beams, scored.n) for scored in scores.values()} == {(2, 3, 3)}


def test_a_wrong_file_is_refused_before_anything_is_read(model, tokenizer, meanings, pieces):
    titles = []

    def show(title, total):
        titles.append(title)
        return not_shown(title, total)

    with pytest.raises(UserError, match="published of sacrebleu's flores200 model"):
        evaluate(
            model,
            tokenizer,
            meanings,
            EvaluationSettings(spbleu_model=str(pieces)),
            evaluated_at=EvaluatedAt.NOW,
            languages=None,
            align_layer=1,
            template=Template.alpaca(),
            show=show,
        )
    assert titles == []


def comet_stand_in(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Path:
    """A command of COMET's name and options that runs `body`, and a checkpoint for it."""
    command = folder / "comet-score"
    command.write_text(f"#!{sys.executable}\nimport json, os, sys\n{body}", encoding="utf-8")
    command.chmod(command.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    (folder / "model.ckpt").touch()
    return folder / "model.ckpt"


def test_comet_stands_beside_the_other_scores(model, tokenizer, meanings, tmp_path, monkeypatch):
    body = """
options = dict(zip(sys.argv[1:], sys.argv[2:]))
assert os.environ["HF_HUB_OFFLINE"] == "1" and options["--model"].endswith("model.ckpt") and options["--gpus"] in "01"
rows = zip(*(open(options[name], encoding="utf-8").read().splitlines() for name in ("-s", "-t", "-r")), strict=True)
json.dump({"hypothesis": [{"COMET": len(source) / 100} for source, _, _ in rows]}, open(options["--to_json"], "w"))
"""
    checkpoint = comet_stand_in(tmp_path, monkeypatch, body)
    settings = EvaluationSettings(translation_sentences=3, max_new_tokens=2, comet_model=str(checkpoint))
    scores, _ = translation(model, tokenizer, meanings, settings, ["de", "en"], Template.alpaca(), not_shown)
    for scored in scores.values():
        assert scored.comet == pytest.approx(sum(len(example.source) for example in scored.examples) / 300)
        assert scored.comet_interval.low < scored.comet < scored.comet_interval.high
        assert "; COMET " in scored.signature


def test_comet_that_cannot_run(model, tokenizer, meanings, tmp_path, monkeypatch):
    def run(checkpoint: Path) -> None:
        settings = EvaluationSettings(translation_sentences=2, max_new_tokens=2, comet_model=str(checkpoint))
        translation(model, tokenizer, meanings, settings, ["de", "en"], Template.alpaca(), not_shown)

    with pytest.raises(UserError, match=r"no COMET checkpoint .*missing\.ckpt"):
        run(tmp_path / "missing.ckpt")
    checkpoint = comet_stand_in(tmp_path, monkeypatch, "sys.exit('no such encoder')")
    with pytest.raises(UserError, match=r"comet-score failed with .*model\.ckpt: no such encoder\."):
        run(checkpoint)
    (tmp_path / "comet-score").unlink()
    with pytest.raises(UserError, match="uv tool install unbabel-comet"):
        run(checkpoint)
