"""`alignx-fast prepare` on synthetic pairs: rows per second of CPU, memory, and every planted fault counted.

python -m benchmarks.corpora.measure FOLDER --rows 10000000 --threads 2 [--write]
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from benchmarks.corpora import synthetic

RESULTS = Path(__file__).parents[1] / "results" / "corpora"
REASONS = {
    "empty": "empty text",
    "identical": "same text on both sides",
    "length": "too long",
    "ratio": "lengths too different",
    "script": "script of another language",
    "repetition": "repetitions",
    "markup": "markup out of step",
    "numbers": "numbers out of step",
    "duplicate": "duplicate",
    "leak": "in test set",
}


def measure(folder: Path, rows: int, threads: int) -> dict[str, object]:
    """Write the pairs where they are not there yet, prepare them in a process of its own, and compare what it dropped with what was planted."""
    written = (folder / "pairs" / "test.jsonl").exists()
    files = sorted((folder / "pairs").glob("pairs-*.jsonl")) if written else synthetic.write(folder / "pairs", rows)
    recipe, output = folder / "recipe.yaml", folder / "out"
    corpus = {
        "output": str(output),
        "threads": threads,
        "sources": [{"path": str(file)} for file in files],
        "test_sets": [{"path": str(folder / "pairs" / "test.jsonl")}],
    }
    recipe.write_text(json.dumps({"corpus": corpus}))  # JSON is YAML
    began, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "alignx_fast", "prepare", str(recipe)], check=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds, cpu = time.perf_counter() - began, used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    card = json.loads((output / "card.json").read_text())
    planted = {REASONS[fault]: count for fault, count in synthetic.faults(rows).items()}
    found = {reason: sum(d["rows"] for d in card["drops"] if d["reason"].startswith(reason)) for reason in planted}
    return {
        "rows": rows,
        "threads": threads,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "rows_per_cpu_second": round(rows / cpu),
        "peak_bytes": used.ru_maxrss * 1024,
        "input_bytes": sum(file.stat().st_size for file in files),
        "output_bytes": sum(card["files"].values()),
        "planted": planted,
        "found": found,
        "exact": planted == found and card["rows"]["kept"] == rows - sum(planted.values()),
        "meanings": card["meanings"],
        "load": [round(load, 1) for load in os.getloadavg()],
    }


def main() -> None:
    """Measure, print, and write a result where asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    result = measure(arguments.folder, arguments.rows, arguments.threads)
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "duckdb": version("duckdb"), "rensa": version("rensa")}
    text = json.dumps({"time": datetime.now().isoformat(timespec="seconds"), **machine, **result}, indent=1)
    print(text)
    if arguments.write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"prepare-{arguments.rows}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
