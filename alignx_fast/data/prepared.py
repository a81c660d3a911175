"""Folders that `alignx-fast prepare` wrote: Arrow files, mapped into memory, beside the card that says what they hold."""

import os
from collections.abc import Iterator
from pathlib import Path

from alignx_fast.data.lines import Record
from alignx_fast.errors import UserError
from alignx_fast.files import read_object

CARD_FILE = "card.json"
PAIRS = "pairs"
INSTRUCTIONS = "instructions"
PASSED, FAILED = "passed", "failed"
"""Results of the check against test sets."""


def is_prepared(folder: Path) -> bool:
    """Whether `prepare` finished this folder."""
    return os.path.isfile(folder / CARD_FILE) and any(os.path.isdir(folder / kind) for kind in (PAIRS, INSTRUCTIONS))


def prepared_records(path: str, kind: str = PAIRS) -> Iterator[Record]:
    """(place in the source, row) of every row of a prepared folder; the files are mapped, so only what is looked at is in memory.

    Raises:
        UserError: a file is missing or was changed, or the folder holds sentences of a test set.
    """
    import pyarrow as pa

    folder = Path(path).expanduser()
    for file in checked_files(folder, kind):
        with pa.memory_map(str(file)) as mapped, pa.ipc.open_file(mapped) as reader:
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                names = [name for name in batch.schema.names if name != "place"]
                columns = [batch.column(name).to_pylist() for name in names]
                for place, *values in zip(batch.column("place").to_pylist(), *columns, strict=True):
                    row = dict(zip(names, values, strict=True))
                    yield place, row | {"gid": f"{path}#{row['meaning']}"}


def checked_files(folder: Path, kind: str) -> list[Path]:
    """The files of the folder's pairs or instructions, in order.

    Raises:
        UserError: as `prepared_records`.
    """
    card = read_object(folder / CARD_FILE)
    if card is None:
        raise UserError(f"{folder} holds no {CARD_FILE} that can be read. Make the folder with `alignx-fast prepare`.")
    again = "Prepare it again with `alignx-fast prepare`."
    if card["leak"]["check"] == FAILED:
        raise UserError(f"{folder} holds {card['leak']['rows_found']} rows with sentences of a test set. {again}")
    for name, size in card["files"].items():
        file = folder / name
        if not file.is_file():
            raise UserError(f"{file} is missing. {again}")
        if file.stat().st_size != size:
            raise UserError(f"{file} has {file.stat().st_size} bytes and was written with {size}: it was changed. {again}")
    return [folder / name for name in card["files"] if name.startswith(f"{kind}/")]
