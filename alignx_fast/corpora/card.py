"""The data card: what was read, dropped and kept, of which sources, by which settings."""

import hashlib
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from alignx_fast.config import Settings
from alignx_fast.corpora.narrow import Counts, Drop
from alignx_fast.corpora.scripts import script_of
from alignx_fast.corpora.sources import Reading

PACKAGES = ("alignx-fast", "duckdb", "pyarrow", "rensa", "py3langid")


def by_language(directions: Counts) -> Counts:
    """Rows with a language on either side."""
    found: Counts = {}
    for direction, rows in directions.items():
        for language in dict.fromkeys(sides(direction)):
            found[language] = found.get(language, 0) + rows
    return dict(sorted(found.items()))


def sides(direction: str) -> tuple[str, str]:
    """The two languages of a direction; codes may hold hyphens themselves, but the parts after the first are longer than three letters."""
    words = direction.split("-")
    at = next(i for i in range(1, len(words)) if words[i].islower() and len(words[i]) < 4)
    return "-".join(words[:at]), "-".join(words[at:])


def drop_entry(drop: Drop) -> dict[str, Any]:
    """A filter's part of the card."""
    return {"reason": drop.reason, "rows": drop.rows, "by_direction": drop.by_direction, "examples": drop.examples}


def unusable_drops(reports: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What could never be used, over all sources."""
    counts: dict[str, int] = {}
    examples: dict[str, list[dict[str, str]]] = {}
    for report in reports:
        for reason, rows in report["unusable"]["counts"].items():
            counts[reason] = counts.get(reason, 0) + rows
            examples[reason] = [*examples.get(reason, []), *report["unusable"]["examples"].get(reason, [])][:10]
    return [{"reason": reason, "rows": rows, "by_direction": {}, "examples": examples[reason]} for reason, rows in counts.items()]


def source_entry(reading: Reading, report: dict[str, Any]) -> dict[str, Any]:
    """A source's part of the card."""
    files = [{"name": str(file), "bytes": file.stat().st_size, "sha256": file_hash(file)} for file in reading.files]
    return {"title": reading.title, "licence": reading.licence, "rows": rows_of(report), "files": files}


def rows_of(report: dict[str, Any]) -> int:
    """Rows read of a source."""
    return int(report["pairs"] + report["tasks"] + sum(report["unusable"]["counts"].values()))


def languages_entry(read: Counts, kept: Counts) -> dict[str, dict[str, Any]]:
    """Rows of each language before and after, and its script."""
    before, after = by_language(read), by_language(kept)
    return {lang: {"read": rows, "kept": after.get(lang, 0), "script": script_of(lang)} for lang, rows in before.items()}


def file_hash(file: Path) -> str:
    """SHA-256 of a file."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def versions() -> dict[str, str]:
    """Versions of what shaped the result."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def settings_entry(settings: Settings) -> dict[str, Any]:
    """The settings that shaped the result."""
    return {"seed": settings.seed, **settings.corpus.model_dump(mode="json")}
