"""Data that is too little for something: the rest works, and the run says what is left out."""

import json
from collections import Counter
from pathlib import Path

import pytest

from alignx_fast.config import Settings
from alignx_fast.training.run import train


def settings(folder: Path, pairs: int, instructions: int, **changes: object) -> Settings:
    rows = [{"src_lang": "en", "tgt_lang": "de", "src": f"word {i} here", "tgt": f"Wort {i} hier"} for i in range(pairs)]
    tasks = [{"instruction": f"Say {i}.", "output": f"I say {i}."} for i in range(instructions)]
    for name, lines in (("pairs", rows), ("tasks", tasks)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    stage = {"tokens_per_micro_batch": 512, "max_steps": 3, "log_every": 1, "evaluate_every": 2}
    tree = {
        "output": folder / "run",
        "model": {"tiny_width": 32, "tiny_layers": 2, "tiny_vocabulary": 300},
        "data": {
            "parallel": [{"path": str(folder / "pairs.jsonl")}],
            "instructions": [{"path": str(folder / "tasks.jsonl")}] if instructions else [],
            "cache_dir": folder / "cache",
        },
        "stages": ["align", "instruct"] if instructions else ["align"],
        "align": {**stage, "pairs_per_step": 8, "matching": {"width": 8}},
        "instruct": {**stage, "rows_per_step": 8},
        "evaluation": {"enabled": False, "sentences": 4, "translation_sentences": 2, "max_new_tokens": 2},
    }
    return Settings.model_validate(tree | changes)


def dev_lines(folder: Path) -> Counter:
    lines = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    return Counter((line["stage"], line["step"]) for line in lines if line.get("event") == "dev")


def test_one_pair_and_one_instruction(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    train(settings(tmp_path, 1, 1), resume=False)
    assert "There are no dev rows" in caplog.text
    assert "All training rows have one meaning" in caplog.text
    assert not dev_lines(tmp_path)
    assert (tmp_path / "run" / "model" / "config.json").exists()
    assert (tmp_path / "run" / "report.html").exists()


def test_the_dev_loss_at_the_end_is_taken_once(tmp_path: Path) -> None:
    train(settings(tmp_path, 12, 12), resume=False)
    assert dev_lines(tmp_path) == {(stage, step): 1 for stage in ("align", "instruct") for step in (0, 2, 3)}


def test_one_sentence_to_evaluate_has_no_chance(tmp_path: Path) -> None:
    held_out = tmp_path / "held_out.jsonl"
    held_out.write_text(json.dumps({"texts": {"en": "a cat", "de": "eine Katze"}}) + "\n")
    chosen = settings(tmp_path, 12, 0)
    chosen.data.evaluation, chosen.evaluation.enabled = str(held_out), True
    train(chosen, resume=False)
    scores = json.loads((tmp_path / "run" / "evaluation" / "after.json").read_text())
    assert scores["translation"]["en-de"]["n"] == 1
    assert scores["translation"]["en-de"]["chance"] is None
    assert scores["translation"]["en-de"]["chrf_interval"] is None
    assert scores["perplexity"]["en"]["bits_per_character_interval"] is None
    assert scores["retrieval"]["average"] is None
    assert any("no two languages share two held-out meanings" in note for note in scores["notes"])
