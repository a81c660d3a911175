"""Rows of a Hugging Face dataset: a name on the hub, a folder written by `save_to_disk`, or a folder of data files."""

from collections.abc import Iterator
from pathlib import Path

from alignx_fast.data.lines import Record
from alignx_fast.errors import UserError


def hub_records(path: str, subset: str | None, split: str) -> Iterator[Record]:
    """("name[split]:row", row) of every row.

    Raises:
        UserError: the dataset, its configuration or its split cannot be loaded.
    """
    import datasets

    folder = Path(path).expanduser()
    try:
        if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
            data = datasets.load_from_disk(str(folder))
            if isinstance(data, datasets.DatasetDict):
                if split not in data:
                    raise UserError(f"{path} has no split `{split}`. It has {', '.join(data)}: set split.")
                data = data[split]
        else:
            data = datasets.load_dataset(str(folder) if folder.is_dir() else path, subset, split=split)
    except UserError:
        raise
    except Exception as error:  # the loaders raise a dozen types, their own among them
        raise UserError(
            f"Cannot load dataset {path} (subset {subset}, split {split}): {str(error).splitlines()[0]} "
            "Check the name, subset and split, and that the network is there or the dataset is cached."
        ) from None
    for number, row in enumerate(data):
        yield f"{path}[{split}]:{number}", row
