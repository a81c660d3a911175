"""Understanding tasks: a task file of one's own through the real lm-eval, where it is installed, and mistakes."""

import json
import sys
from pathlib import Path

import pytest
import torch

from alignx_fast.config import EvaluationSettings
from alignx_fast.data.templates import Template
from alignx_fast.errors import UserError
from alignx_fast.evaluation.evaluate import evaluate
from alignx_fast.evaluation.results import EvaluatedAt, TaskScore
from alignx_fast.evaluation.understanding import _headline, check_tasks

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


def test_what_is_read_of_a_task() -> None:
    values = {"alias": "t", "perplexity,none": 287.9, "f1,none": 0.5, "acc,none": 0.25, "acc_stderr,none": 0.1}
    assert _headline(values, 7) == TaskScore(metric="acc", score=0.25, stderr=0.1, n=7)
    without_error = {"f1,flexible": 0.5, "f1_stderr,flexible": "N/A"}
    assert _headline(without_error, 7) == TaskScore(metric="f1", score=0.5, stderr=None, n=7)
    assert _headline({"perplexity,none": 287.9}, 7) is None


def test_a_task_that_is_not_known(folder):
    pytest.importorskip("lm_eval")
    check_tasks(["alignx_mood"], folder)
    with pytest.raises(UserError, match="lm-eval knows no task 'alignx_moot'"):
        check_tasks(["alignx_moot"], folder)
    with pytest.raises(UserError, match="which is no folder"):
        check_tasks(["alignx_mood"], folder / "absent")


def test_without_lm_eval_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    monkeypatch.setitem(sys.modules, "lm_eval.tasks", None)
    with pytest.raises(UserError, match=r"alignx-fast\[understanding\]"):
        check_tasks(["xnli_de"], None)
