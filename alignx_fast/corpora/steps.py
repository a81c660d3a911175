"""The steps of a preparation: each is done once, and a killed preparation goes on with the first that was not."""

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignx_fast.corpora.settings import CorpusSettings
from alignx_fast.corpora.sources import Reading
from alignx_fast.files import read_object, write_json

log = logging.getLogger(__name__)
INDIFFERENT = {"output", "threads", "memory"}
"""Settings that do not change what is made."""


def fingerprint(settings: CorpusSettings, seed: int, readings: Sequence[Reading]) -> str:
    """Changes with whatever changes the result: settings, seed, source files (size, time), and the code of this package."""
    code = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        code.update(file.read_bytes())
    states = [(reading.title, [(str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in reading.files]) for reading in readings]
    parts = [settings.model_dump(mode="json", exclude=INDIFFERENT), seed, states, code.hexdigest()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


class Steps:
    """The record of finished steps in the work folder."""

    def __init__(self, work: Path, print_: str) -> None:
        self.work, self.file = work, work / "steps.json"
        known = read_object(self.file)
        if known is None or known.get("fingerprint") != print_:
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            known = {"fingerprint": print_, "done": {}}
        self.record: dict[str, Any] = known
        if self.done:
            log.info("Going on after: %s.", ", ".join(self.done))

    @property
    def done(self) -> dict[str, Any]:
        """What each finished step reported."""
        done: dict[str, Any] = self.record["done"]
        return done

    def finish(self, step: str, report: dict[str, Any], began: float) -> None:
        """Write down that a step is done."""
        self.done[step] = report | {"seconds": round(time.monotonic() - began, 1)}
        write_json(self.file, self.record)
