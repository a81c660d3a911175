"""Timing, memory, and the way from rows to the README."""

import json
import time

import pytest
import torch

from benchmarks import render
from benchmarks.fresh import FreshProcessError, in_fresh_process
from benchmarks.goals import GOALS, LARGEST, Measured
from benchmarks.rates import Rates
from benchmarks.results import Results
from benchmarks.timing import alternating_ratio, cpu_peak_bytes, median_seconds

CPU = torch.device("cpu")
PROBLEM = LARGEST["one direction"]


def row(implementation, ms, *, over_floor=1.5, extra=1e9, **other):
    sizes = {"n": 65536, "m": 65536, "d": 4096, "dtype": "bf16", "symmetric": False}
    phase = {"ms": ms, "fastest_ms": ms, "slowest_ms": ms, "repeats": 3, "rate": 6e14, "unit": "FLOP/s", "over_floor": over_floor}
    return {
        "family": "info_nce",
        "problem": PROBLEM,
        "implementation": implementation,
        "status": "ok",
        "sizes": sizes,
        "errors": {"output": 1e-4, "queries": 2e-3, "keys": 3e-3},
        "checked_at": PROBLEM,
        "forward": phase | {"ms": ms / 3},
        "forward+backward": phase,
        "extra_bytes": extra,
    } | other


def content(rows, date="2026-01-01T00:00:00+00:00", device="Some GPU"):
    run = {
        "date": date,
        "command": "pytest benchmarks",
        "machine": {"device": device, "driver": "1.2", "cpu_threads": 4},
        "versions": {"torch": "2.13.0", "triton": "3.9.0"},
        "git": {"commit": "0123456789abcdef", "dirty": False},
    }
    return {"run": run, "rates": {}, "rows": rows}


@pytest.fixture
def folder(tmp_path):
    """Two runs of one device: the later one replaces the row of "alignx"."""
    old = content([row("alignx", 900.0), row("torch eager", 400.0, extra=2e10)])
    failed = {"status": "wrong", "reason": "relative error of keys is 0.9, above 0.06"}
    bad = {key: row("memeff", 1.0)[key] for key in ("family", "problem", "implementation", "sizes")} | failed
    new = content([row("alignx", 200.0, over_floor=1.1), bad], date="2026-02-01T00:00:00+00:00")
    (tmp_path / "b.json").write_text(json.dumps(old))
    (tmp_path / "a.json").write_text(json.dumps(new))
    return tmp_path


def test_the_table_holds_the_newest_rows_and_no_speed_of_a_wrong_one(folder):
    (device,) = render.load(folder)
    lines = {line.split(" | ")[1]: line for line in render.readme_part([device]).splitlines() if line.startswith("| info_nce")}
    assert "200 ms | 600 TFLOP/s | 1.10x | 1.00 GB | 3.0e-03" in lines["alignx"]
    assert "400 ms" in lines["torch eager"]
    assert "20.00 GB" in lines["torch eager"]
    assert "wrong (relative error of keys" in lines["memeff"]
    assert " ms" not in lines["memeff"]
    assert "Some GPU, torch 2.13.0, triton 3.9.0, driver 1.2, commit 0123456789, 2026-02-01" in render.readme_part([device])


def test_goals_are_met_missed_or_open(folder):
    (device,) = render.load(folder)
    states = {goal.text: goal.line(Measured(device.rows.values())) for goal in GOALS}
    assert len(states) == len(GOALS)
    floor = next(line for text, line in states.items() if text.endswith("one direction: time over the floor"))
    assert floor[1:] == ("≤ 1.18 x", "1.1 x", "met")
    peers = next(line for text, line in states.items() if "best peer" in text)
    assert peers[2:] == ("2 x", "met")
    assert next(line for text, line in states.items() if "span_mean, forward" in text)[2:] == ("", "open")
    slower = Measured([row("alignx", 500.0, over_floor=1.3), row("torch eager", 400.0)])
    assert next(goal for goal in GOALS if "best peer" in goal.text).line(slower)[3] == "missed"


def test_the_readme_changes_between_the_markers_only(folder):
    text = f"before\n{render.BEGIN}\nold\n{render.END}\nafter\n"
    assert render.replace_between_markers(text, "new") == f"before\n{render.BEGIN}\nnew\n{render.END}\nafter\n"
    with pytest.raises(ValueError, match=r"README.md lacks the lines .*begin"):
        render.replace_between_markers("no markers", "new")


def test_main_writes_table_plot_and_readme(folder, monkeypatch):
    readme = folder / "README.md"
    readme.write_text(f"{render.BEGIN}\n{render.END}\n")
    monkeypatch.setattr("sys.argv", ["render", "--results", str(folder), "--readme", str(readme)])
    render.main()
    assert "| alignx |" in readme.read_text()
    assert "| goal | wanted | measured |" in (folder / "TABLE.md").read_text()
    assert "<svg" in (folder / "some-gpu.svg").read_text()


def test_rows_are_on_disk_as_soon_as_they_are_added(tmp_path):
    results = Results(tmp_path / "new" / "x.json", {"date": "now"}, Rates(CPU))
    for number in (1, 2):
        results.add({"number": number})
        assert [found["number"] for found in json.loads(results.path.read_text())["rows"]] == list(range(1, number + 1))


def test_the_peak_is_what_was_held_at_once():
    megabytes = 80
    assert cpu_peak_bytes(lambda: torch.ones(megabytes << 20, dtype=torch.int8)) > 0.95 * (megabytes << 20)
    # Freed before: no part of the second peak.
    assert cpu_peak_bytes(lambda: torch.ones(1 << 20, dtype=torch.int8)) < 20 << 20


def test_every_repeat_starts_after_its_reset():
    calls = []
    times = median_seconds(lambda: calls.append("run"), CPU, seconds=0.0, reset=lambda: calls.append("reset"))
    assert times.repeats == 3
    assert calls == ["reset", "run"] * 4, "one warm-up, then the repeats"
    assert times.fastest <= times.median <= times.slowest


def test_a_ratio_is_taken_in_turn(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    calls = []

    def run(name: str, seconds: float) -> None:
        calls.append(name)
        clock[0] += seconds * (50 if len(calls) == 5 else 1)  # one run meets a busy machine

    assert alternating_ratio(lambda: run("one", 3.0), lambda: run("other", 2.0), rounds=3) == 1.5
    assert calls == ["one", "other"] * 4


def test_a_fresh_process_answers_or_says_why_not():
    assert in_fresh_process("math", "gcd", 12, 18) == 6
    with pytest.raises(FreshProcessError, match="TypeError"):
        in_fresh_process("math", "gcd", "a")
    code = "import atexit, os; atexit.register(os.write, 2, b'Warning: later'); raise RuntimeError('CUDA: out of memory' + chr(10) + 'hint')"
    with pytest.raises(FreshProcessError, match=r"^RuntimeError: CUDA: out of memory$"):
        in_fresh_process("builtins", "exec", code)


def test_training_steps_show_what_they_ran_with():
    head = {"family": "train_step", "problem": "8b", "status": "ok"}
    numbers = {"tokens_per_second": 2000.0, "seconds": 3.0, "utilisation": 0.5, "peak_gib": 9.0, "weights_gib": 6.0}
    packed = head | numbers | {"implementation": "alignx", "attention": "varlen", "tokens_per_micro_batch": 2048}
    padded = head | numbers | {"implementation": "stock", "attention": "sdpa", "rows_per_micro_batch": 4}
    full = head | {"implementation": "other", "status": "out of memory", "reason": "no", "rows_per_micro_batch": 1}
    before = head | numbers | {"implementation": "old"}
    header, _, *lines = render.table([packed, padded, full, before]).splitlines()
    assert len({line.count("|") for line in (header, *lines)}) == 1
    assert "| varlen | 2,048 tokens | 2,000 | 3 | 50.0% | 9.00 GiB | 3.00 GiB |" in lines[0]
    assert "| sdpa | 4 rows | 2,000 |" in lines[1]
    assert "| out of memory (no) | 1 rows |" in lines[2]
    assert "| old |  |  | 2,000 |" in lines[3]


def test_kernels_are_measured_without_the_training_libraries():
    """A missing wheel takes the training steps with it, not the rest."""
    missing = ("pydantic", "transformers", "datasets", "bitsandbytes", "peft", "accelerate", "yaml", "cyclopts")
    modules = ("conftest", "test_info_nce", "test_language_matching", "test_span_mean", "test_pooled_info_nce")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({missing})); import {', '.join('benchmarks.' + name for name in modules)}"
    )
    assert in_fresh_process("builtins", "exec", code) is None
