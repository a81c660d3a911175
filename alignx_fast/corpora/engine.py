"""The database engine: DuckDB with bounded memory, the rest on the disk."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from alignx_fast.corpora.settings import CorpusSettings
from alignx_fast.errors import UserError

if TYPE_CHECKING:
    import duckdb


@contextmanager
def connect(
    settings: CorpusSettings, scratch: Path, database: Path | None = None, threads: int | None = None
) -> Iterator["duckdb.DuckDBPyConnection"]:
    """An engine that keeps to the memory and threads of the settings, and puts what does not fit into `scratch`.

    Raises:
        UserError: DuckDB is not installed, or it needs more memory than it may take.
    """
    try:
        import duckdb
    except ModuleNotFoundError:
        raise UserError("`alignx-fast prepare` needs DuckDB: `pip install duckdb`.") from None
    limits: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": settings.memory,
        "temp_directory": str(scratch),
        "preserve_insertion_order": False,  # every result that has an order says so
    }
    if threads or settings.threads:
        limits["threads"] = threads or settings.threads or 1
    try:
        with duckdb.connect(str(database or ":memory:"), config=limits) as engine:
            yield engine
    except duckdb.OutOfMemoryException:
        raise UserError(
            f"The {settings.memory} of corpus.memory are too little for so many rows: go on with the same command and more, as in "
            "`--corpus.memory 2GB`."
        ) from None


def quoted(text: object) -> str:
    """A text as a constant of SQL."""
    return "'" + str(text).replace("'", "''") + "'"
