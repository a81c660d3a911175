"""The parts of an evaluation that are done, in a file: one that was cut off goes on with the next part."""

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from alignx_fast.evaluation.results import Evaluation
from alignx_fast.files import read_object, write_json

log = logging.getLogger(__name__)


class Parts:
    """Takes each part once.

    Args:
        file: where parts are kept until all are done; None keeps nothing.
        inputs: everything that the scores depend on, as a JSON value; parts that were taken of anything else are forgotten.
    """

    def __init__(self, file: Path | None, inputs: object) -> None:
        self.file = file
        self.key = hashlib.sha256(json.dumps(inputs, sort_keys=True, default=str).encode()).hexdigest()
        content = read_object(file) if file is not None else None
        kept = content.get("parts") if content is not None and content.get("inputs") == self.key else None
        self.kept: dict[str, object] = kept if isinstance(kept, dict) else {}

    def take(self, name: str, score: Callable[[], Evaluation]) -> Evaluation:
        """The scores of a part, from the file where it was done before; fields that are not of this part are empty."""
        try:
            if name in self.kept:
                scores = Evaluation.from_json(self.kept[name])
                log.info("  %s: done before", name)
                return scores
        except ValueError:
            pass  # damaged: it is taken again
        scores = score()
        self.kept[name] = scores.to_json()
        if self.file is not None:
            write_json(self.file, {"inputs": self.key, "parts": self.kept})
        return scores


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
