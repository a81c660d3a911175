"""A small synthetic run folder with everything that a finished run has."""

import json
from pathlib import Path

import pytest
import yaml

LANGUAGES = ["ar", "de", "en"]
SENTENCES = {"ar": "كيف حال الطقس؟", "de": "Wie ist das Wetter?", "en": "How is <b>the weather</b> & the sea?"}


def scores(at: str, top1: float, chrf: float, *, translate: bool = True) -> dict[str, object]:
    pairs = {f"{a}-{b}": {"top1": top1, "n": 40} for a in LANGUAGES for b in LANGUAGES if a != b}
    directions = [pair for pair in pairs if "en" in pair.split("-")] if translate else []
    return {
        "when": at,
        "model": "some/model",
        "align_layer": 1,
        "num_layers": 2,
        "languages": LANGUAGES,
        "seconds": 1.5,
        "sentences": 40,
        "retrieval": {"chance": 0.025, "average": top1, "pairs": pairs},
        "layers": {
            "similarity": [0.5, top1, 0.6],
            "unrelated": [0.4, 0.2, 0.5],
            "cka": [0.1, 0.2, 0.3],
            "retrieval": [0, top1, 0],
        },
        "translation": {
            direction: {
                "bleu": chrf / 4,
                "chrf++": chrf,
                "chance": {"bleu": 0.5, "chrf++": 9.25},
                "n": 1,
                "tokenizer": "13a",
                "off_target": None,
                "signature": "BLEU nrefs:1|tok:13a; chrF++ nw:2",
                "examples": [
                    {
                        "source": SENTENCES[direction.split("-")[0]],
                        "reference": SENTENCES[direction.split("-")[1]],
                        "hypothesis": "" if at == "before" else SENTENCES[direction.split("-")[1]],
                    }
                ],
            }
            for direction in directions
        },
        "understanding": {"xnli_de": {"metric": "acc", "score": 0.3 + top1, "stderr": 0.03, "n": 200}},
        "perplexity": {code: {"perplexity": 800 * (1 - top1), "bits_per_character": 2.5, "tokens": 99} for code in LANGUAGES},
        "map": {
            "layer": 1,
            "explained": [0.6, 0.3],
            "points": [{"x": i + top1, "y": -i, "lang": code, "id": str(i)} for i in range(4) for code in LANGUAGES],
        },
        "notes": ["BLEU into xx counts characters."] if at == "after" else [],
    }


def log_lines() -> list[dict[str, object]]:
    lines = []
    for start, stage in ((0, "ntp_only"), (50, "align"), (100, "instruct")):
        for step in range(0, 50, 10):
            line = {"stage": stage, "step": step + 10, "epoch": step / 40, "time": start + step + 10, "loss": 5 - step / 20}
            line |= {"loss_ntp": 4 - step / 20, "grad_norm": 1 + step, "tokens_per_second": 1234.0, "memory_gib": 6.5}
            if stage == "align":
                line |= {"loss_contrastive": 3 - step / 20, "loss_matching": 0.6}
            lines += [
                line,
                {"stage": stage, "step": step, "event": "dev", "dev_loss": 6 - step / 20, "dev_loss_ntp": 5 - step / 20},
            ]
    return lines


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run that a test may change."""
    return fill(tmp_path)


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run that no test changes."""
    return fill(tmp_path_factory.mktemp("run"))


def fill(tmp_path: Path) -> Path:
    for folder in ("evaluation", "data", "model"):
        (tmp_path / folder).mkdir()
    settings = {
        "name": "first <run>",
        "seed": 0,
        "stages": ["align", "instruct"],
        "model": {"path": "builtin:tiny", "tuning": "full"},
    }
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(settings))
    write(
        tmp_path / "environment.json", {"versions": {"torch": "2.13.0", "flash-attn": None}, "command": ["alignx-fast", "train"]}
    )
    (tmp_path / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log_lines()))
    for stage in ("align", "instruct"):
        counts = {"rows": 1234, "tokens": 56789, "tokens_mean": 46.02}
        languages = {code: {"rows_as_source": 321, "rows_as_target": 322} for code in LANGUAGES}
        summary = {"stage": stage, "rows_read": 2000, "dropped": {"duplicate": 17}, "train": counts, "dev": counts}
        write(tmp_path / "data" / f"{stage}.json", summary | {"languages": languages, "template": "alpaca"})
    points = {
        "before": (0.04, 8, True),
        "ntp_only": (0.05, 0, False),
        "after_align": (0.21, 19, True),
        "after": (0.25, 23, True),
    }
    for at, (top1, chrf, translate) in points.items():
        write(tmp_path / "evaluation" / f"{at}.json", scores(at, top1, chrf, translate=translate))
    return tmp_path


def write(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")
