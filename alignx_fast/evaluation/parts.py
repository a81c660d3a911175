"""The parts of an evaluation that are done, in a file: one that was cut off goes on with the next part."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from alignx_fast.evaluation.results import Evaluation
from alignx_fast.files import finite, read_object, write_json

log = logging.getLogger(__name__)


class Parts:
    """Takes each part once.

    Args:
        file: where parts are kept until all are done; None keeps nothing.
        inputs: everything that the scores depend on, as a JSON value; parts that were taken of anything else are forgotten.
    """

    def __init__(self, file: Path | None, inputs: object) -> None:
        self.file = file
        self.key = _hash(inputs)
        self.kept: dict[str, object] = {}
        if file is None or not file.exists():
            return
        content = read_object(file) or {}
        parts = content.get("parts")
        if not isinstance(parts, dict) or content.get("sha256") != _hash(parts):
            log.warning("%s is damaged: the parts of the evaluation that it held are taken again.", file)
        elif content.get("inputs") == self.key:
            self.kept = parts

    def take(self, name: str, score: Callable[[], Evaluation]) -> Evaluation:
        """The scores of a part, from the file where it was done before; fields that are not of this part are empty."""
        try:
            if name in self.kept:
                scores = Evaluation.from_json(self.kept[name])
                log.info("  %s: done before", name)
                return scores
        except ValueError:
            log.warning("%s holds no scores of %s that can be read: they are taken again.", self.file, name)
        scores = score()
        self.kept[name] = scores.to_json()
        if self.file is not None:
            parts = finite(self.kept)  # as they are read again
            write_json(self.file, {"inputs": self.key, "sha256": _hash(parts), "parts": parts})
        return scores


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()


def joined(whole: Evaluation, parts: Sequence[Evaluation]) -> Evaluation:
    """`whole` with what the parts have scored; their notes and seconds are added up."""
    empty = Evaluation()
    scored = {name: value for part in parts for name, value in part if value != getattr(empty, name)}
    return whole.model_copy(
        update=scored
        | {
            "notes": (*whole.notes, *(note for part in parts for note in part.notes)),
            "seconds": sum(part.seconds or 0.0 for part in parts),
        }
    )
