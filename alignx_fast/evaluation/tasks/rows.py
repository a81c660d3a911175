"""The rows of a local task: one language of a file of JSON lines, as lm-eval takes them."""

from collections.abc import Sequence
from pathlib import Path

import datasets

from alignx_fast.data.languages import check_language
from alignx_fast.data.lines import Record, jsonl_records
from alignx_fast.errors import UserError


def local_rows(
    *, file: str, task: str, lang: str, split: str, columns: Sequence[str], task_data: str | None = None, **rest: object
) -> dict[str, datasets.Dataset]:
    """The rows of a task in one language under the name of their split, for `custom_dataset` of a task file.

    lm-eval calls it with the task's `metadata`, to which `task_data` is added by the caller of lm-eval, and its `dataset_kwargs`.

    Args:
        file: name of the file in `task_data`, without .jsonl or .jsonl.gz.
        task: rows with this `task` are taken.
        split: what rows say in `split`, where a file holds others too.
        columns: what each row must have.
        rest: the task's words, those that are text, which become columns too; anything else is ignored.

    Raises:
        UserError: no folder was given, the file or the language is not there, or a row lacks a column.
    """
    if task_data is None:
        raise UserError(f"Task {task} in {lang} reads {file}.jsonl: name its folder with `evaluation.task_data`.")
    path = find_file(Path(task_data), file)
    words = {name: value for name, value in rest.items() if isinstance(value, str)}
    languages: set[str] = set()
    rows: list[dict[str, object]] = []
    for record in jsonl_records(str(path)):
        if value(record, "task") != task or value(record, "split") != split:
            continue
        code = check_language(value(record, "lang"))
        languages.add(code)
        if code == lang:
            rows.append({name: value(record, name) for name in columns} | words)
    if not rows:
        raise UserError(
            f"{path} has no {split} rows of {task} in {lang}: it has {task} in {', '.join(sorted(languages)) or 'no language'}."
        )
    return {split: datasets.Dataset.from_list(rows)}


def find_file(folder: Path, name: str) -> Path:
    """`name`.jsonl.gz or `name`.jsonl in the folder.

    Raises:
        UserError: neither is there.
    """
    candidates = [folder / f"{name}.jsonl.gz", folder / f"{name}.jsonl"]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise UserError(f"No file {candidates[1]} (or .jsonl.gz): put it there, or name its folder with `evaluation.task_data`.")
    return found


def value(record: Record, name: str) -> object:
    """What a row says under `name`."""
    where, row = record
    if row.get(name) is None:
        raise UserError(f"{where} has no `{name}`. Each row of a task needs it.")
    return row[name]
