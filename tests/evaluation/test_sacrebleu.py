"""Scores, intervals and p-values are those of sacrebleu's own command line on the written outputs."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.translations import CHINESE, GERMAN, worsened

from alignx_fast.config import EvaluationSettings
from alignx_fast.evaluation.results import DirectionTranslation, TranslatedSentence
from alignx_fast.evaluation.scoring import CorpusScorer
from alignx_fast.evaluation.significance import ALL_DIRECTIONS, Method, paired_tests
from alignx_fast.evaluation.spbleu import find_spbleu

METRICS = ("-m", "bleu", "chrf", "ter", "--chrf-word-order", "2")
LANGUAGES = {
    "13a": (GERMAN, ("-tok", "13a")),
    "zh": (CHINESE, ("-tok", "zh", "--ter-normalized", "--ter-asian-support")),
}
BROKEN = "Zwei\nZeilen ."
SEED = "20260101"


def sacrebleu(folder: Path, *arguments: str, **environment: str) -> str:
    """What the command prints."""
    command = [sys.executable, "-m", "sacrebleu", "ref", *arguments, "-w", "8"]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=os.environ | environment)
    assert run.returncode == 0, run.stderr
    return run.stdout


def write(folder: Path, **texts: Sequence[str]) -> Path:
    for name, lines in texts.items():
        (folder / name).write_text("".join(" ".join(line.splitlines()) + "\n" for line in lines), encoding="utf-8")
    return folder


def close(value: float) -> object:
    return pytest.approx(value, abs=1e-4)  # sacrebleu resamples in float32


@pytest.mark.parametrize("tokenizer", LANGUAGES)
def test_scores_and_intervals(tokenizer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", SEED)
    references, options = LANGUAGES[tokenizer]
    hypotheses = [BROKEN, *worsened(references, 0.2)[1:]]
    write(tmp_path, ref=references, hyp=hypotheses)
    printed = json.loads(sacrebleu(tmp_path, "-i", "hyp", *METRICS, *options, "-f", "json", "--confidence"))
    ours = CorpusScorer(tokenizer).with_intervals(hypotheses, references)
    for name, theirs in zip(("bleu", "chrf", "ter"), printed, strict=True):
        assert getattr(ours.scores, name) == close(theirs["score"])
        assert ours.intervals[name].low == close(theirs["confidence_mean"] - theirs["confidence_var"])
        assert ours.intervals[name].high == close(theirs["confidence_mean"] + theirs["confidence_var"])
        assert theirs["signature"] in ours.signature
        assert f"seed:{SEED}" in ours.signature
    assert CorpusScorer(tokenizer).scores(hypotheses, references) == ours.scores


@pytest.mark.parametrize("name", ["flores101", "flores200"])
def test_spbleu(name: str, pieces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {"flores101": "sacrebleu_tokenizer_spm.model", "flores200": "flores200sacrebleuspm"}
    (tmp_path / "models").mkdir()
    shutil.copy(pieces, tmp_path / "models" / kept[name])
    monkeypatch.setattr("alignx_fast.evaluation.spbleu.PUBLISHED_SHA256", {})
    settings = EvaluationSettings.model_validate({"spbleu_tokenizer": name, "spbleu_model": str(pieces)})
    for references in (GERMAN, CHINESE):
        hypotheses = worsened(references, 0.15)
        write(tmp_path, ref=references, hyp=hypotheses)
        printed = sacrebleu(
            tmp_path, "-i", "hyp", "-m", "bleu", "-tok", name, "-f", "json", "--confidence", SACREBLEU=str(tmp_path)
        )
        theirs = json.loads(printed)
        ours = CorpusScorer("13a", find_spbleu(settings)).with_intervals(hypotheses, references)
        assert 0 < theirs["score"] < 100
        assert ours.scores.spbleu == close(theirs["score"])
        assert ours.intervals["spbleu"].high == close(theirs["confidence_mean"] + theirs["confidence_var"])
        assert f"spBLEU {theirs['signature']}" in ours.signature


def evaluated(hypotheses: Sequence[str], references: Sequence[str], tokenizer: str) -> DirectionTranslation:
    examples = [
        TranslatedSentence(source=f"source {i}", reference=reference, hypothesis=hypothesis)
        for i, (hypothesis, reference) in enumerate(zip(hypotheses, references, strict=True))
    ]
    return DirectionTranslation(bleu=0, chrf=0, tokenizer=tokenizer, examples=tuple(examples))


PAIRED = {Method.BOOTSTRAP: ("--paired-bs", "--paired-bs-n"), Method.RANDOMISATION: ("--paired-ar", "--paired-ar-n")}


@pytest.mark.parametrize("method", Method)
@pytest.mark.parametrize("tokenizer", LANGUAGES)
def test_p_values(tokenizer: str, method: Method, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", SEED)
    references, options = LANGUAGES[tokenizer]
    baseline = [BROKEN, *worsened(references, 0.25, seed=1)[1:]]
    model = worsened(references, 0.15, seed=2)
    write(tmp_path, ref=references, base=baseline, model=model)
    mode, trials = PAIRED[method]
    printed = sacrebleu(tmp_path, "-i", "base", "model", *METRICS, *options, mode, trials, "400", "-f", "text")
    ours = paired_tests(
        {"en-xx": evaluated(baseline, references, tokenizer)},
        {"en-xx": evaluated(model, references, tokenizer)},
        method,
        trials=400,
    )
    assert set(ours) == {"en-xx"}
    by_metric = {test.metric: test for test in ours["en-xx"]}
    p_values = re.findall(r"\(p = ([\d.]+)\)", printed)
    table = re.sub(r"\(.*?\)", "", printed).splitlines()  # without intervals and p-values
    lines = {name: next(line for line in table if f" {name} │" in line) for name in ("Baseline: base", "model")}
    scores = {name: re.findall(r"\d+\.\d{8}", line) for name, line in lines.items()}
    assert len(p_values) == 3
    assert len({*p_values, "1.0000"}) > 2
    for i, name in enumerate(("BLEU", "chrF++", "TER")):
        test = by_metric[name]
        assert f"{test.p_value:.4f}" == p_values[i]
        assert test.signature in printed
        assert (test.method, test.n) == (method, 10)
        assert (f"{test.baseline:.8f}", f"{test.score:.8f}") == (scores["Baseline: base"][i], scores["model"][i])
        assert test.difference == test.score - test.baseline


def test_all_directions_are_one_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SACREBLEU_SEED", SEED)
    halves = {"en-de": GERMAN[:4], "fr-de": GERMAN[4:]}
    outputs = [{name: worsened(texts, share, seed=3) for name, texts in halves.items()} for share in (0.3, 0.2)]
    joined = [[text for texts in output.values() for text in texts] for output in outputs]
    write(tmp_path, ref=GERMAN, base=joined[0], model=joined[1])
    printed = sacrebleu(tmp_path, "-i", "base", "model", *METRICS, "--paired-bs", "--paired-bs-n", "300", "-f", "text")
    evaluations = [{name: evaluated(output[name], halves[name], "13a") for name in halves} for output in outputs]
    ours = paired_tests(*evaluations, Method.BOOTSTRAP, trials=300)
    assert list(ours) == ["en-de", "fr-de", ALL_DIRECTIONS]
    by_metric = {test.metric: test for test in ours[ALL_DIRECTIONS]}
    found = [f"{by_metric[name].p_value:.4f}" for name in ("BLEU", "chrF++", "TER")]
    assert found == re.findall(r"\(p = ([\d.]+)\)", printed)
