"""What a run was made of: a fingerprint of its data and weights, kept in the run folder and compared when it is resumed."""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa

from alignx_fast.contents import sha256
from alignx_fast.data.prepare import Prepared
from alignx_fast.errors import UserError
from alignx_fast.files import read_object, write_json

log = logging.getLogger(__name__)

MODEL_FILES = (
    "*.safetensors",
    "*.safetensors.index.json",
    "config.json",
    "adapter_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "chat_template.jinja",
)
"""What of a model folder decides what is trained."""

Fingerprints = dict[str, str]
"""Hash of each part of a run, by what a sentence calls it."""


class RunInputs:
    """The record of a run folder, `inputs.json`: settings, fingerprints, and the changes that were accepted."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "inputs.json"
        content = read_object(self.file)
        if content is None and self.file.exists():
            log.warning("%s cannot be read: it is written anew, and nothing can be compared with it this time.", self.file)
        content = content or {}
        settings, parts, accepted = content.get("settings"), content.get("fingerprints"), content.get("accepted_changes")
        self.settings: dict[str, object] | None = settings if isinstance(settings, dict) else None
        self.fingerprints: Fingerprints = parts if isinstance(parts, dict) else {}
        self.accepted: list[object] = accepted if isinstance(accepted, list) else []

    def clear(self) -> None:
        """Forget everything."""
        self.settings, self.fingerprints, self.accepted = None, {}, []

    def changed(self, now: Fingerprints) -> list[str]:
        """The parts that are not what they were."""
        return [part for part, value in now.items() if self.fingerprints.get(part, value) != value]

    def record(self, settings: dict[str, object], now: Fingerprints, accepted: list[str]) -> None:
        """Keep what the run goes on with, and when it was told to accept a change."""
        self.settings = settings
        self.fingerprints |= now
        if accepted:
            self.accepted.append({"time": datetime.now().isoformat(sep=" ", timespec="seconds"), "changes": accepted})
        content = {"settings": self.settings, "fingerprints": self.fingerprints, "accepted_changes": self.accepted}
        write_json(self.file, content)

    def add(self, part: str, value: str) -> None:
        """Keep one more fingerprint."""
        self.record(self.settings or {}, {part: value}, [])


def refuse(folder: Path, changed: list[str]) -> None:
    """Refuse to continue a run on what is not its own.

    Raises:
        UserError: always.
    """
    what = " and ".join(changed)
    verb = "differ" if len(changed) > 1 or what.endswith("s") else "differs"
    raise UserError(
        f"{what[0].upper()}{what[1:]} {verb} from what {folder} was started with: restore what was there, accept the change with "
        "--accept-changes, or choose another folder with --output."
    )


def data_fingerprints(prepared: Mapping[str, Prepared]) -> Fingerprints:
    """Hashes of the rows of every stage, and of the sentences that are scored."""
    parts = {f"the data of stage {stage}": rows_fingerprint(data) for stage, data in prepared.items()}
    meanings = [asdict(meaning) for meaning in next(iter(prepared.values())).eval_meanings]
    return parts | {"the held-out sentences": _text_hash(meanings)}


def rows_fingerprint(prepared: Prepared) -> str:
    """A hash of all rows of a stage, the same however they lie in files."""
    return _text_hash([prepared.languages, *(_columns_hash(data) for data in (prepared.train, prepared.dev))])


def model_fingerprint(folder: Path) -> str:
    """A hash of the files that make up a model."""
    files = sorted({file for pattern in MODEL_FILES for file in folder.glob(pattern) if file.is_file()})
    return _text_hash([(file.name, sha256(file)) for file in files])


def _columns_hash(data: datasets.Dataset) -> list[tuple[str, str]]:
    """A hash of the values of every column and, where they are lists, one of their lengths."""
    names = sorted(data.column_names)
    hashes = {name: (hashlib.sha256(), hashlib.sha256()) for name in names}
    for table in data.with_format("arrow").iter(batch_size=10_000):
        for name, (values, lengths) in hashes.items():
            for chunk in table.column(name).chunks:
                if hasattr(chunk, "value_lengths"):
                    lengths.update(_bytes(chunk.value_lengths()))
                    values.update(_bytes(chunk.flatten()))
                else:
                    values.update(_bytes(chunk))
    return [(name, values.hexdigest() + lengths.hexdigest()) for name, (values, lengths) in hashes.items()]


def _bytes(numbers: pa.Array) -> bytes:
    array: np.ndarray = numbers.to_numpy(zero_copy_only=False)
    return array.astype("<i8").tobytes()


def _text_hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
