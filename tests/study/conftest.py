"""Data that the tests of studies share."""

from pathlib import Path

import pytest
from support.studies import WORDS, text, write_lines


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pairs, tasks and held-out sentences."""
    folder = tmp_path_factory.mktemp("data")
    write_lines(
        folder / "pairs.jsonl",
        [{"src_lang": "en", "tgt_lang": "de", "src": text("en", i), "tgt": text("de", i)} for i in range(40)],
    )
    tasks = [{"instruction": "Say it twice.", "input": f"{i}!", "output": f"{i}! {i}!", "lang": "en"} for i in range(40)]
    write_lines(folder / "tasks.jsonl", tasks)
    held_out = [{"id": str(i), "texts": {lang: text(lang, i) for lang in WORDS}} for i in range(100, 108)]
    write_lines(folder / "held_out.jsonl", held_out)
    return folder
