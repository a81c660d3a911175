"""Small corpora on disk."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from alignx_fast.config import Settings
from alignx_fast.corpora.run import prepare
from alignx_fast.data.lines import Row
from alignx_fast.data.prepared import CARD_FILE, PAIRS, prepared_records
from alignx_fast.files import read_json

Lines = Sequence[dict[str, object]]
Prepare = Callable[..., "Result"]


class Result:
    """A prepared folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.card: dict[str, Any] = read_json(folder / CARD_FILE)

    @property
    def rows(self) -> list[Row]:
        """Its pairs."""
        return [row for _, row in prepared_records(str(self.folder), PAIRS)]

    @property
    def dropped(self) -> dict[str, int]:
        """Rows dropped, by reason."""
        return {drop["reason"]: drop["rows"] for drop in self.card["drops"] if drop["rows"]}


def write_jsonl(path: Path, rows: Lines) -> Path:
    """Rows as JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def prepared(tmp_path: Path) -> Prepare:
    """A function that prepares rows, or sources, with settings of `corpus`, into tmp_path/out."""

    def run(
        pairs: Lines = (), /, sources: Sequence[dict[str, object]] = (), seed: int = 0, out: str = "out", **corpus: object
    ) -> Result:
        if pairs:
            sources = [{"path": str(write_jsonl(tmp_path / "pairs.jsonl", pairs))}]
        settings = Settings.model_validate(
            {"seed": seed, "corpus": {"output": str(tmp_path / out), "sources": list(sources), "threads": 1, **corpus}}
        )
        return Result(prepare(settings))

    return run


def pair(src: str, tgt: str, src_lang: str = "en", tgt_lang: str = "de", **more: object) -> dict[str, object]:
    """A row of a file of pairs."""
    return {"src_lang": src_lang, "tgt_lang": tgt_lang, "src": src, "tgt": tgt, **more}


def distinct(number: int) -> list[dict[str, object]]:
    """So many pairs that say different things."""
    return [pair(f"The cat number {i} sleeps.", f"Die Katze Nummer {i} schläft.") for i in range(1, number + 1)]
