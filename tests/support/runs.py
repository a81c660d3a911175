"""Settings of runs that take seconds: a tiny model, forty pairs, stage 1, no evaluation."""

import json
from pathlib import Path

from alignx_fast.config import Settings, load_settings

WORDS = {"en": ["cat", "dog", "sun", "tree"], "de": ["Katze", "Hund", "Sonne", "Baum"]}


def settings(folder: Path, run: str, **model: object) -> Settings:
    """A run in FOLDER/RUN on data in FOLDER; `model` are settings of the model."""
    pairs = folder / "pairs.jsonl"
    texts = [{lang: f"{words[i % 4]} {words[i // 4 % 4]} {i}" for lang, words in WORDS.items()} for i in range(40)]
    lines = [{"src_lang": "en", "tgt_lang": "de", "src": text["en"], "tgt": text["de"]} for text in texts]
    pairs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return load_settings(
        None,
        {
            "output": str(folder / run),
            "stages": ["align"],
            "evaluation.enabled": False,
            "data.parallel": [{"path": str(pairs)}],
            "data.cache_dir": str(folder / "cache"),
            "data.dev_pairs": 4,
            "model.tiny_width": 64,
            "model.tiny_layers": 2,
            "model.tiny_vocabulary": 300,
            "align.pairs_per_step": 8,
            "align.max_steps": 4,
            "align.save_every": 4,
            "align.learning_rate": 1e-2,
            "align.matching.width": 8,
        }
        | {f"model.{name}": value for name, value in model.items()},
    )
