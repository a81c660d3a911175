"""A small study: a model of two layers, forty pairs, four tasks, seconds a run."""

import json
from pathlib import Path

import yaml

from alignx_fast.study.spec import Study, load_study

WORDS = {"en": ["cat", "dog", "sun", "tree"], "de": ["Katze", "Hund", "Sonne", "Baum"]}


def text(lang: str, i: int) -> str:
    """Sentence i in a language; the same for no two."""
    return f"{WORDS[lang][i % 4]} {WORDS[lang][i // 4 % 4]} {i}"


def write_lines(file: Path, rows: list[dict[str, object]]) -> Path:
    """JSON lines."""
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def study_tree(data: Path, output: Path) -> dict[str, object]:
    """A study as its file has it: an untrained model, one without the losses, and two that have stage 1 in common."""
    stage = {"log_every": 2, "learning_rate": 1e-2}
    return {
        "name": "small",
        "output": str(output),
        "seeds": [0],
        "baseline": "plain",
        "settings": {
            "model": {"tiny_width": 64, "tiny_layers": 2, "tiny_vocabulary": 300},
            "data": {
                "parallel": [{"path": str(data / "pairs.jsonl")}],
                "instructions": [{"path": str(data / "tasks.jsonl")}],
                "evaluation": str(data / "held_out.jsonl"),
                "cache_dir": str(data / "cache"),
                "dev_pairs": 4,
            },
            "align": {"pairs_per_step": 8, "max_steps": 4, "save_every": 2, "matching": {"width": 8}, **stage},
            "instruct": {"rows_per_step": 8, "max_steps": 3, "save_every": 2, **stage},
            "evaluation": {"translation_sentences": 1, "max_new_tokens": 4},
        },
        "variants": {
            "base": {"train": False},
            "plain": {"align.contrastive.weight": 0, "align": {"matching.weight": 0}},
            "short": {"align": {"contrastive": {"weight": 0}, "matching": {"weight": 0}}, "instruct.max_steps": 2},
        },
    }


def read_study(tree: dict[str, object], folder: Path, **options: object) -> Study:
    """The study of a tree, by way of a file."""
    file = folder / "study-file.yaml"
    file.write_text(yaml.safe_dump(tree, sort_keys=False))
    return load_study(file, {}, **options)
