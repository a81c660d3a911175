"""Understanding tasks: task files through the real lm-eval, where it is installed, its command line beside ours, and mistakes."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
import torch

from alignx_fast.config import EvaluationSettings
from alignx_fast.data.templates import Template
from alignx_fast.errors import UserError
from alignx_fast.evaluation.evaluate import evaluate
from alignx_fast.evaluation.intervals import bootstrap_mean
from alignx_fast.evaluation.progress import Advance
from alignx_fast.evaluation.results import EvaluatedAt, Interval, TaskScore
from alignx_fast.evaluation.tasks import TASK_FILES
from alignx_fast.evaluation.understanding import _headline, check_tasks, understanding
from alignx_fast.evaluation.undisturbed import undisturbed

ROWS = [{"text": text, "label": i % 2} for i, text in enumerate(["Set an alarm", "Call", "Play music", "Zima", "Spiele Musik"])]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mood.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    task = {
        "task": "alignx_mood",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tmp_path / "mood.jsonl")}},
        "test_split": "test",
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}}",
        "doc_to_target": "label",
        "doc_to_choice": ["good", "weather"],
        "metric_list": [{"metric": "acc"}],
    }
    (tmp_path / "mood.yaml").write_text(json.dumps(task))  # JSON is YAML
    return tmp_path


@torch.no_grad()
def test_a_task_of_ones_own_equals_an_independent_count(model, plain, tokenizer, meanings, folder):
    pytest.importorskip("lm_eval")
    settings = EvaluationSettings(sentences=5, tasks="alignx_mood", task_folder=folder, task_examples=4)
    before = torch.get_rng_state()
    scores = evaluate(
        model,
        tokenizer,
        meanings,
        settings,
        evaluated_at=EvaluatedAt.NOW,
        languages=None,
        align_layer=2,
        template=Template.alpaca(),
        translate=False,
    )
    assert torch.equal(torch.get_rng_state(), before)

    right = 0
    for row in ROWS[:4]:
        sums = []
        for choice in ("good", "weather"):
            prompt = tokenizer(row["text"])["input_ids"]
            ids = torch.tensor([prompt + tokenizer(" " + choice, add_special_tokens=False)["input_ids"]])
            predicted = plain(input_ids=ids).logits[0].log_softmax(-1)
            sums.append(sum(float(predicted[at - 1, ids[0, at]]) for at in range(len(prompt), ids.shape[1])))
        right += sums.index(max(sums)) == row["label"]
    assert 0 < right < 4
    task = scores.understanding["alignx_mood"]
    assert (task.metric, task.score, task.n) == ("acc", right / 4, 4)
    assert task.stderr > 0
    assert task.interval.low <= right / 4 <= task.interval.high


def test_what_is_read_of_a_task() -> None:
    values = {"alias": "t", "perplexity,none": 287.9, "f1,none": 0.5, "acc,none": 0.25, "acc_stderr,none": 0.1}
    examples = [{"filter": "none", "acc": float(i == 0), "f1": 0.5} for i in range(4)]
    score = _headline(values, examples)
    assert (score.metric, score.score, score.stderr, score.n) == ("acc", 0.25, 0.1, 4)
    assert score.interval == bootstrap_mean([[1, 0, 0, 0]])

    filtered = [example | {"filter": name} for name in ("strict", "flexible") for example in examples]
    without_error = {"f1,flexible": 0.5, "f1_stderr,flexible": "N/A"}
    assert _headline(without_error, filtered) == TaskScore(metric="f1", score=0.5, n=4, interval=Interval(low=0.5, high=0.5))
    assert _headline({"perplexity,none": 287.9}, examples) is None


def test_the_interval_of_a_score_that_is_no_mean() -> None:
    pairs = [{"filter": "none", "f1": (0, 1)}, {"filter": "none", "f1": (1, 1)}]
    values = {"f1,none": 0.5, "f1_stderr,none": 0.1}
    assert _headline(values, pairs).interval == Interval(low=0.5 - 0.196, high=0.5 + 0.196)
    assert _headline(values | {"f1_stderr,none": "N/A"}, pairs).interval is None


def test_a_task_that_is_not_known(folder):
    pytest.importorskip("lm_eval")
    check_tasks(EvaluationSettings(tasks="alignx_mood", task_folder=folder))
    with pytest.raises(UserError, match="lm-eval knows no task 'alignx_moot': did you mean alignx_mood"):
        check_tasks(EvaluationSettings(tasks="alignx_moot", task_folder=folder))
    with pytest.raises(UserError, match="which is no folder"):
        check_tasks(EvaluationSettings(tasks="alignx_mood", task_folder=folder / "absent"))


def test_local_tasks_without_their_data(folder):
    pytest.importorskip("lm_eval")
    with pytest.raises(UserError, match=r"'local_xcopa_de': did you mean .*local_xcopa_\w\w"):
        check_tasks(EvaluationSettings(tasks="local_xcopa_de", task_folder=folder))
    with pytest.raises(UserError, match=r"name its folder with `evaluation\.task_data`"):
        check_tasks(EvaluationSettings(tasks="local_xcopa_sw", task_folder=folder))
    with pytest.raises(UserError, match=r"No file .*understanding_xcopa\.jsonl"):
        check_tasks(EvaluationSettings(tasks="local_xcopa_sw", task_folder=folder, task_data=folder))


@pytest.mark.slow
def test_scores_equal_those_of_the_command_line_of_lm_eval(model, tokenizer, meanings, tmp_path):
    pytest.importorskip("lm_eval")
    names = ["local_xcopa_sw", "local_pawsx_de", "local_mgsm_en", "local_xquad_de"]
    write_local_data(tmp_path, " ".join(text for meaning in meanings for text in meaning.texts.values()).split())
    settings = EvaluationSettings(tasks=names, task_data=tmp_path, task_examples=12, tokens_per_batch=300)
    check_tasks(settings)
    done: dict[tuple[str, int], int] = {}
    with undisturbed(model):
        scores = understanding(model, tokenizer, settings, partial(recorded, done))
    assert tokenizer.pad_token is None
    assert done["answering local_pawsx_de (task 2 of 4)", 24] == 24
    assert done["answering local_mgsm_en (task 3 of 4)", 12] == 12
    assert len(done) == 4

    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    command = f"run --model hf --model_args pretrained={tmp_path / 'model'},dtype=float32 --device cpu --batch_size 3 --limit 12"
    paths = ["--include_path", str(TASK_FILES), "--output_path", str(tmp_path / "results")]
    metadata = ["--metadata", json.dumps({"task_data": str(tmp_path)})]
    subprocess.run(
        [sys.executable, "-m", "lm_eval", *command.split(), "--tasks", ",".join(names), *paths, *metadata],
        check=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
    )
    (file,) = (tmp_path / "results").rglob("results_*.json")
    theirs = json.loads(file.read_text())
    for name, ours in scores.items():
        values = theirs["results"][name]
        assert ours.score == pytest.approx(values[f"{ours.metric},none"], abs=1e-12)
        assert ours.n == theirs["n-samples"][name]["effective"] == 12
        if ours.metric == "acc":
            assert ours.stderr == pytest.approx(values["acc_stderr,none"], abs=1e-12)
            assert 0 < ours.score < 1
        assert ours.interval.low <= ours.score <= ours.interval.high


@contextmanager
def recorded(done: dict[tuple[str, int], int], title: str, total: int) -> Iterator[Advance]:
    done[title, total] = 0

    def advance(count: int) -> None:
        done[title, total] += count

    yield advance


def write_local_data(folder: Path, words: list[str]) -> None:
    """Thirteen rows of each of four tasks; no two are alike, and both labels occur."""
    rows: dict[str, list[dict[str, object]]] = {name: [] for name in ("xcopa", "pawsx", "mgsm", "xquad")}
    for i in range(13):
        first, second, third = (" ".join(words[(i + at) % len(words) :][:5]) for at in (0, 7, 15))
        copa = {"lang": "sw", "split": "test", "question": "cause" if i % 3 else "effect", "premise": first + "."}
        rows["xcopa"].append(copa | {"choices": [second, third], "label": i % 2})
        rows["pawsx"].append({"lang": "de", "split": "dev", "sentence1": first, "sentence2": second, "label": i % 2})
        rows["mgsm"].append({"lang": "en", "split": "test", "question": first, "answer": str(i)})
        rows["xquad"].append({"lang": "de", "split": "heldout", "context": first, "question": second, "answers": [third]})
    for name, of_task in rows.items():
        lines = [json.dumps({"task": name} | row) + "\n" for row in of_task]
        (folder / f"understanding_{name}.jsonl").write_text("".join(lines))


def test_without_lm_eval_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(UserError, match=r"alignx-fast\[understanding\]"):
        check_tasks(EvaluationSettings(tasks="xnli_de"))
