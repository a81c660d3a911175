"""The entries of the cache: listed with size, age and user; removed by size and age, never one in use."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignx_fast.cli import app
from alignx_fast.data import entries as module
from alignx_fast.data.cache import PARTIAL, building
from alignx_fast.data.entries import entries, hold, partial_name, remove_old
from alignx_fast.errors import UserError
from alignx_fast.verbs.cache import manage, parse_age, parse_size, shown_size

DAY = 24 * 3600


def make(cache: Path, number: int, size: int, days: float) -> Path:
    """An entry of `size` bytes that was used so many days ago."""
    folder = cache / f"align-{number:032x}"
    (folder / "train").mkdir(parents=True)
    used = folder / "used.json"
    used.write_text(json.dumps({"run": f"runs/{number}", "process": 7, "machine": "there"}))
    (folder / "train" / "rows").write_bytes(b"x" * (size - used.stat().st_size))
    os.utime(used, (time.time() - days * DAY,) * 2)
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Three entries of 1000 bytes, used 1, 10 and 40 days ago, and what is not the cache's."""
    for number, days in ((1, 1), (2, 10), (3, 40)):
        make(tmp_path, number, 1000, days)
    for name in ("align-mine", "align-123", "models", f"instruct-{0:033x}"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").write_text("mine")
    return tmp_path


def numbers(folder: Path) -> list[int]:
    return [int(entry.folder.name[-1]) for entry in entries(folder)]


def test_entries_are_listed_and_others_are_not(cache: Path) -> None:
    found = entries(cache)
    assert numbers(cache) == [1, 2, 3]
    assert [entry.bytes for entry in found] == [1000] * 3
    assert found[1].used_by == "runs/2 (process 7 on there)"
    assert not any(entry.in_use for entry in found)
    assert round((time.time() - found[2].last_used) / DAY) == 40
    assert entries(cache / "nothing") == entries(cache / "notes.txt") == []


@pytest.mark.parametrize(
    ("max_bytes", "max_seconds", "left"),
    [
        (None, 30 * DAY, [1, 2]),
        (2500, None, [1, 2]),
        (1000, None, [1]),
        (0, None, []),
        (10**6, 100 * DAY, [1, 2, 3]),
        (2500, 5 * DAY, [1]),
    ],
)
def test_bounds(cache: Path, max_bytes: float | None, max_seconds: float | None, left: list[int]) -> None:
    foreign = set(cache.iterdir()) - {entry.folder for entry in entries(cache)}
    remove_old(cache, max_bytes, max_seconds)
    assert numbers(cache) == left
    assert foreign <= set(cache.iterdir())
    assert len(list(cache.iterdir())) == len(foreign) + len(left)


HOLD = "import sys, time; from pathlib import Path; from alignx_fast.data.entries import hold\n"
HOLD += "hold(Path(sys.argv[1]), 'runs/live'); print('held', flush=True); time.sleep(20)"


def test_an_entry_in_use_is_never_removed(
    cache: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By another process, until it ends, and by this one."""
    monkeypatch.setenv("COLUMNS", "200")
    third = cache / f"align-{3:032x}"
    with subprocess.Popen([sys.executable, "-c", HOLD, str(third)], stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        os.utime(third / "used.json", (1, 1))
        remove_old(cache, 0, 0)
        assert numbers(cache) == [3]
        manage(cache, None, None)
        assert f"in use: runs/live (process {other.pid} on " in capsys.readouterr().out
        other.send_signal(signal.SIGKILL)
    hold(third, "me")
    remove_old(cache, 0, 0)
    assert numbers(cache) == [3]
    for number in module._held.values():
        os.close(number)
    module._held.clear()
    remove_old(cache, 0, 0)
    assert numbers(cache) == []


def test_what_killed_processes_left_goes_too(cache: Path) -> None:
    for name in (f"{partial_name()}1", f"{partial_name()}2", f"{PARTIAL}elsewhere-1", f"{PARTIAL}elsewhere-2"):
        (cache / name).mkdir()
        (cache / name / "half").write_text("half")
    module.hold_partial(cache / f"{partial_name()}1")
    for path in (cache / f"{PARTIAL}elsewhere-1" / "half", cache / f"{PARTIAL}elsewhere-1"):
        os.utime(path, (1, 1))
    (cache / f"{partial_name()}3").mkdir()  # just made
    remove_old(cache, None, 365 * DAY)
    left = {path.name for path in cache.iterdir() if path.name.startswith(PARTIAL)}
    assert left == {f"{partial_name()}1", f"{partial_name()}3", f"{PARTIAL}elsewhere-2"}


def test_without_locks_nothing_is_removed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(module.fcntl, "flock", no_locks)
    assert all(entry.in_use for entry in entries(cache))
    assert remove_old(cache, 0, 0) == []
    with building(cache / f"align-{9:032x}") as partial:
        (partial / "a").write_text("a")
    hold(cache / f"align-{9:032x}", "me")
    assert len(entries(cache)) == 4


def test_the_verb(cache: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app(["cache", str(cache), "--max-size", "2kB", "--max-age", "30d"], result_action="return_value")
    said = capsys.readouterr().out
    assert "Removed 1 entry, 1.0 kB." in said
    assert f"{cache}: 2 entries, 2.0 kB" in said
    assert "10 d ago" in said
    manage(cache / "nothing", None, None)
    assert "0 entries, 0 B" in capsys.readouterr().out
    with pytest.raises(UserError, match="is no folder"):
        manage(cache / "notes.txt", None, None)


def test_amounts() -> None:
    assert [parse_size(text) for text in ("5GB", "5 gib", "1.5k", "7", "0B", "2T")] == [5e9, 5 * 2**30, 1500, 7, 0, 2e12]
    assert [parse_age(text) for text in ("30d", "12h", "2w", "0.5m")] == [30 * DAY, 43200, 14 * DAY, 30]
    for text in ("", "GB", "-1GB", "5 parsecs", "nan", "1e9", "iB"):
        with pytest.raises(UserError, match="is no size; write it like 5GB"):
            parse_size(text)
    for text in ("", "30", "d", "-1d", "30days"):
        with pytest.raises(UserError, match="is no time; write it like 30d"):
            parse_age(text)
    assert [shown_size(size) for size in (0, 999, 1500, 2 * 10**9)] == ["0 B", "999 B", "1.5 kB", "2.0 GB"]
