"""DuckDB beside polars on the same work, one core each: read JSON lines, clean, drop exact duplicates, write Parquet.

python -m benchmarks.corpora.engines FOLDER     # a folder that `synthetic.write` filled
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

ENGINES = ("duckdb", "polars")


def with_duckdb(files: str, output: str, scratch: str) -> None:
    """The work in SQL, with at most 600 MB for the engine."""
    import duckdb

    engine = duckdb.connect(config={"threads": 1, "memory_limit": "600MB", "temp_directory": scratch})
    engine.execute(f"""
        COPY (
            SELECT src_lang, tgt_lang, any_value(src) AS src, any_value(tgt) AS tgt
            FROM (
                SELECT *, lower(trim(src)) AS a, lower(trim(tgt)) AS b
                FROM read_json('{files}', format = 'newline_delimited',
                    columns = {{src_lang: 'VARCHAR', tgt_lang: 'VARCHAR', src: 'VARCHAR', tgt: 'VARCHAR'}})
            )
            WHERE a <> '' AND b <> '' AND a <> b AND length(a) < 500 AND length(b) < 500
              AND greatest(length(a), length(b)) <= 9 * least(length(a), length(b))
              AND NOT (tgt_lang = 'de' AND regexp_matches(b, '\\p{{Cyrillic}}'))
            GROUP BY src_lang, tgt_lang, md5_number(least(a, b) || chr(0) || greatest(a, b))
        ) TO '{output}' (FORMAT parquet, COMPRESSION zstd)""")


def with_polars(files: str, output: str, scratch: str) -> None:
    """The same in expressions, on the streaming engine."""
    import polars as pl

    a, b = pl.col("a"), pl.col("b")
    longer, shorter = (f(a.str.len_chars(), b.str.len_chars()) for f in (pl.max_horizontal, pl.min_horizontal))
    (
        pl.scan_ndjson(files, schema={"src_lang": pl.String, "tgt_lang": pl.String, "src": pl.String, "tgt": pl.String})
        .with_columns(
            a=pl.col("src").str.strip_chars().str.to_lowercase(),
            b=pl.col("tgt").str.strip_chars().str.to_lowercase(),
        )
        .filter(a != "", b != "", a != b, longer < 500, longer <= 9 * shorter)
        .filter(~((pl.col("tgt_lang") == "de") & b.str.contains(r"\p{Cyrillic}")))
        .with_columns(key=(pl.min_horizontal(a, b) + "\0" + pl.max_horizontal(a, b)).hash())
        .unique(["src_lang", "tgt_lang", "key"], keep="any")
        .select("src_lang", "tgt_lang", "src", "tgt")
        .sink_parquet(output, compression="zstd")
    )


def main(folder: Path) -> None:
    """Run both, each in a process of its own, and print a line of JSON for each."""
    for engine in ENGINES:
        subprocess.run([sys.executable, "-m", "benchmarks.corpora.engines", str(folder), engine], check=True)


def measure(folder: Path, engine: str) -> None:
    """Rows per second and peak memory of one engine in this process."""
    os.environ["POLARS_MAX_THREADS"] = "1"
    output = folder / f"{engine}.parquet"
    began, used = time.perf_counter(), time.process_time()
    {"duckdb": with_duckdb, "polars": with_polars}[engine](f"{folder}/pairs-*.jsonl", str(output), str(folder / "scratch"))
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    import pyarrow.parquet as pq

    rows = sum(1 for file in folder.glob("pairs-*.jsonl") for _ in file.open("rb"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    line = {"engine": engine, "rows": rows, "kept": pq.read_metadata(output).num_rows, "seconds": round(seconds, 1)}
    print(json.dumps(line | {"rows_per_cpu_second": round(rows / cpu), "peak_bytes": peak}))


if __name__ == "__main__":
    if len(sys.argv) > 2:
        measure(Path(sys.argv[1]), sys.argv[2])
    else:
        main(Path(sys.argv[1]))
