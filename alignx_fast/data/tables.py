"""Records of CSV and Parquet files."""

import csv
import itertools
from collections.abc import Iterator

from alignx_fast.data.lines import LONGEST_LINE, Record, lines, local
from alignx_fast.errors import UserError, first_line

ROWS_PER_BATCH = 4096


def csv_records(path: str) -> Iterator[Record]:
    """Comma- or semicolon-separated values with quoting; the first line names the columns.

    Raises:
        UserError: a row with another number of cells than the first, or quotes that do not close, with file and line number.
    """
    stream = lines(path)
    first = next(stream, None)
    if first is None:
        return
    delimiter = max(",;", key=first[1].count)
    csv.field_size_limit(LONGEST_LINE)
    rows = csv.reader((f"{text}\n" for _, text in itertools.chain([first], stream)), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    number = 1
    try:
        for cells in rows:
            where, number = f"{path}:{number}", rows.line_num + 1
            if names is None:
                names = [cell.strip() for cell in cells]
            elif cells:
                if len(cells) != len(names):
                    raise UserError(
                        f"{where} has {len(cells)} cells and the file's first line {len(names)}. "
                        "Put quotes around cells that hold the separator."
                    )
                yield where, dict(zip(names, cells, strict=True))
    except csv.Error as error:
        raise UserError(f"{path}:{number} is not CSV: {first_line(error)} Check the quotes of that row.") from None


def parquet_records(path: str) -> Iterator[Record]:
    """The rows of a Parquet file, a batch in memory at a time.

    Raises:
        UserError: no such file, or not Parquet.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(str(local(path)))
        rows = itertools.chain.from_iterable(batch.to_pylist() for batch in file.iter_batches(ROWS_PER_BATCH))
        for number, row in enumerate(rows, start=1):
            yield f"{path}:{number}", row
    except FileNotFoundError:
        raise UserError(f"No file {path}. Check the path.") from None
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"Cannot read {path} as Parquet: {first_line(error)} Fetch or write it again.") from None
