"""Rows of a Hugging Face dataset: a name on the hub, a folder written by `save_to_disk`, or a folder of data files."""

import os
from collections.abc import Iterator

from alignx_fast.data.lines import Record, local
from alignx_fast.errors import UserError, first_line


def hub_records(path: str, subset: str | None, split: str) -> Iterator[Record]:
    """("name[split]:row", row) of every row.

    Raises:
        UserError: the dataset, its configuration or its split cannot be loaded.
    """
    import datasets

    folder = local(path)
    try:
        if any(os.path.isfile(folder / name) for name in ("dataset_dict.json", "state.json")):
            data = datasets.load_from_disk(str(folder))
            if isinstance(data, datasets.DatasetDict):
                if split not in data:
                    raise UserError(f"{path} has no split `{split}`. It has {', '.join(data)}: set split.")
                data = data[split]
        else:
            data = datasets.load_dataset(str(folder) if os.path.isdir(folder) else path, subset, split=split)
    except UserError:
        raise
    except Exception as error:  # the loaders raise a dozen types, their own among them
        raise UserError(
            f"Cannot load dataset {path} (subset {subset}, split {split}): {first_line(error)} "
            "Check the name, subset and split, and that the network is there or the dataset is cached."
        ) from None
    number = 0
    try:
        for number, row in enumerate(data):
            yield f"{path}[{split}]:{number}", row
    except Exception as error:  # a damaged file, or a column of sounds or images whose decoder is missing
        raise UserError(
            f"Cannot read dataset {path} (split {split}) around row {number}: {first_line(error)} Load it again."
        ) from None
