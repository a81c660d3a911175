"""The same rows without `prepare`: a plain pipeline of the library `datasets`, and what `train` does with plain files before it tokenises.

python -m benchmarks.corpora.plain FOLDER [--write]     # a folder that `synthetic.write` filled
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from benchmarks.corpora.measure import RESULTS

WAYS = ("datasets", "train")
MOST_CHARACTERS, LENGTH_RATIO, SMOOTHING = 1000, 4, 10
"""As the filters of `prepare`; scripts, repetitions, markup, numbers, test sets and meanings are left out."""


def with_datasets(files: list[str], scratch: Path) -> int:
    """Rows that are left after cheap filters and exact duplicates in either direction, written to the disk."""
    import datasets

    seen: set[int] = set()

    def keep(batch: dict[str, list[str]]) -> list[bool]:
        return [_keeps(*row, seen) for row in zip(*(batch[name] for name in ("src_lang", "tgt_lang", "src", "tgt")), strict=True)]

    rows = datasets.load_dataset("json", data_files=files, split="train", cache_dir=str(scratch / "cache"))
    rows = rows.filter(keep, batched=True, load_from_cache_file=False)
    rows.save_to_disk(str(scratch / "saved"))
    return len(rows)


def _keeps(src_lang: str, tgt_lang: str, src: str, tgt: str, seen: set[int]) -> bool:
    a, b = src.strip().lower(), tgt.strip().lower()
    longer, shorter = max(len(a), len(b)), min(len(a), len(b))
    if not shorter or a == b or longer > MOST_CHARACTERS or longer + SMOOTHING > LENGTH_RATIO * (shorter + SMOOTHING):
        return False
    pair = hash(frozenset(((src_lang, a), (tgt_lang, b))))
    known = pair in seen
    seen.add(pair)
    return not known


def with_train(files: list[str], scratch: Path) -> int:
    """Pairs that `train` would tokenise, each counted once."""
    from alignx_fast.config import Settings
    from alignx_fast.data.gather import gather
    from alignx_fast.stages import StageName

    settings = Settings.model_validate({"data": {"parallel": [{"path": file} for file in files]}})
    rows = gather(settings, StageName.ALIGN)
    return len(rows.train) + len(rows.dev) - rows.rows_reversed


def measure(folder: Path, way: str) -> dict[str, Any]:
    """Rows per second of CPU and peak memory of one way, in this process."""
    files = [str(file) for file in sorted((folder / "pairs").glob("pairs-*.jsonl"))]
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        began, used = time.perf_counter(), time.process_time()
        kept = {"datasets": with_datasets, "train": with_train}[way](files, Path(scratch))
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
    rows = sum(Path(file).read_bytes().count(b"\n") for file in files)
    return {
        "way": way,
        "rows": rows,
        "kept": kept,
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "rows_per_cpu_second": round(rows / cpu),
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        "load": [round(load, 1) for load in os.getloadavg()],
    }


def main() -> None:
    """Measure both ways, each in a process of its own; print, and write a result where asked for."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--way", choices=WAYS)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measure(arguments.folder, arguments.way)))
        return
    command = [sys.executable, "-m", "benchmarks.corpora.plain", str(arguments.folder), "--way"]
    found = [json.loads(subprocess.run([*command, way], check=True, stdout=subprocess.PIPE).stdout) for way in WAYS]
    machine = {"machine": platform.machine(), "cores": os.cpu_count(), "datasets": version("datasets")}
    text = json.dumps({"time": datetime.now().isoformat(timespec="seconds"), **machine, "ways": found}, indent=1)
    print(text)
    if arguments.write:
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"plain-{found[0]['rows']}.json").write_text(text + "\n")


if __name__ == "__main__":
    main()
