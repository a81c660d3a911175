"""Where a command runs: streams that are closed, broken or ASCII, signals at any moment, and places that refuse a file."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from alignx_fast.entry import main
from alignx_fast.files import check_place, read_json, write_json
from alignx_fast.places import NO_FOLDER, NO_HOME, refusal

COMMAND = f"{sys.executable} -m alignx_fast"


def shell(line: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"],
        capture_output=True,
        encoding="utf-8",
        check=False,
        env=os.environ | environment,
    )


def in_process(code: str, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    """`alignx-fast ARGUMENTS` whose `doctor` does what `code` says."""
    stand_in = f"import sys, types; doctor = types.ModuleType('alignx_fast.verbs.doctor'); sys.modules[doctor.__name__] = doctor\n{code}\n"
    program = f"{stand_in}doctor.examine = examine; sys.argv = ['alignx-fast', *{list(arguments)!r}]\nfrom alignx_fast.entry import main; main()"
    return subprocess.Popen(
        [sys.executable, "-c", program],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | environment,
    )


# Streams.


@pytest.mark.parametrize(
    ("line", "code", "out", "err"),
    [
        (f"{COMMAND} schema | head -1", 0, "{\n", ""),
        (f"{COMMAND} recipes | true", 0, "", ""),
        (f"{COMMAND} recipes >&-", 0, "", ""),
        (f"{COMMAND} recipes <&- >&- 2>&-", 0, "", ""),
        (f"{COMMAND} report nowhere 2>&-", 2, "", ""),
        (f"{COMMAND} report nowhere 2>&1 >&- | true", 2, "", ""),
        (f"{COMMAND} schema > /dev/full", 2, "", "alignx-fast: Standard output cannot be written (No space left on device)"),
        (f"{COMMAND} report nowhere > /dev/full", 2, "", "alignx-fast: There is no run folder nowhere"),
    ],
)
def test_a_stream_that_is_gone(line: str, code: int, out: str, err: str) -> None:
    done = shell(line)
    assert (done.returncode, done.stdout) == (code, out)
    assert done.stderr.startswith(err)
    assert len(done.stderr.splitlines()) == bool(err)


def test_work_goes_on_without_its_reader(tmp_path: Path) -> None:
    """`report` leaves a file: that nobody reads its path is said once, and is no failure."""
    (tmp_path / "settings.yaml").write_text("name: a run\n")
    (tmp_path / "log.jsonl").write_text('{"stage": "align", "step": 1, "time": 1.0, "loss": 1.0}\n')
    done = shell(f"{COMMAND} report {tmp_path} > /dev/full")
    assert done.returncode == 0
    assert done.stderr == "alignx-fast: Standard output is lost (No space left on device): going on without it.\n"
    assert (tmp_path / "report.html").stat().st_size > 0


def test_characters_that_a_terminal_cannot_show(tmp_path: Path) -> None:
    recipe = tmp_path / "größe.yaml"
    recipe.write_text("# für alle: 漢\n", encoding="utf-8")
    done = shell(f"{COMMAND} recipes show {recipe}", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stdout) == (0, "# f\\xfcr alle: \\u6f22\n\n")
    done = shell(f"{COMMAND} report /größe", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert "/gr\\xf6\\xdfe" in done.stderr
    done = shell(rf"{COMMAND} report $'\xff'")
    assert done.returncode == 2
    assert "is not valid UTF-8" in done.stderr


# Signals.

SLEEPS = "import time\ndef examine(): print('ready', flush=True); time.sleep(60)"
SWALLOWS = """
import time
class Careless:
    def __del__(self): print('ready', flush=True); time.sleep(60)
def examine(): object = Careless(); del object; time.sleep(60)
"""
CONVERTS = """
import time
def examine():
    try: print('ready', flush=True); time.sleep(60)
    except KeyboardInterrupt: raise ImportError("no such thing")
"""
IMPORTS = """
import pathlib, tempfile
folder = tempfile.mkdtemp(); sys.path.insert(0, folder)
pathlib.Path(folder, "slow_to_import.py").write_text("import time\\ntry: print('ready', flush=True); time.sleep(60)\\nexcept BaseException: pass")
def examine(): import slow_to_import; time.sleep(60)
"""
STUBBORN = """
import time
def examine():
    while True:
        try: print('ready', flush=True); time.sleep(60)
        except KeyboardInterrupt: pass
"""


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("code", [SLEEPS, SWALLOWS, CONVERTS, IMPORTS], ids=["sleeps", "swallows", "converts", "imports"])
def test_a_stop_is_one_line(code: str, kind: signal.Signals) -> None:
    with in_process(code, "doctor") as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(kind)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "alignx-fast: Stopped.\n")


def test_a_second_stop_ends_at_once() -> None:
    with in_process(STUBBORN, "doctor") as process:
        assert process.stdout is not None
        for _ in range(2):
            assert process.stdout.readline() == "ready\n"
            process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (130, "")


def test_a_stop_at_the_start() -> None:
    """At any time while the command is being imported."""
    for delay in (0.05, 0.1, 0.2, 0.4, 0.8):
        with subprocess.Popen(
            [sys.executable, "-c", "print(1, flush=True); from alignx_fast.entry import main; main()", "x"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(delay)
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        assert "KeyboardInterrupt" not in err


# Places.


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(errno.EDQUOT, "Disk quota exceeded", "/a"), "The disk quota is used up: free some of it, then go on."),
        (OSError(errno.EROFS, "Read-only file system", "/a"), "/a lies on a disk that can only be read: choose another place."),
        (OSError(errno.EACCES, "Permission denied", b"/a"), "No permission to use /a: give it, or choose another place."),
        (
            RuntimeError("Error while serializing: I/O error: File too large (os error 27)"),
            "A file would be larger than files may be here: raise the limit (`ulimit -f`), then go on.",
        ),
        (RuntimeError("[Errno 28] Error writing bytes to file."), "No space left on the disk: free some, then go on."),
        (RuntimeError("Could not determine home directory."), NO_HOME),
        (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 5000), f"The path {'x' * 100}...{'x' * 100} is too long"),
        (ValueError("a fault of the program"), None),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), None),
    ],
)
def test_what_the_system_refuses(error: Exception, words: str | None) -> None:
    said = refusal(error, ", then go on.")
    assert said is None if words is None else said is not None and said.startswith(words)


def test_what_lies_below_an_error_of_a_library() -> None:
    error = RuntimeError("could not generate")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert refusal(error, ".") == "No space left on the disk: free some."


def test_a_working_folder_that_was_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    try:
        with pytest.raises(FileNotFoundError) as raised:
            Path("a").absolute()
        assert refusal(raised.value, ".") == NO_FOLDER
    finally:
        os.chdir(tmp_path)


def test_a_result_is_given_a_place_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_place(tmp_path / "new" / "scores.json")
    (tmp_path / "file").touch()
    for path, kind in ((tmp_path / "file" / "scores.json", NotADirectoryError), (tmp_path, IsADirectoryError)):
        with pytest.raises(kind):
            check_place(path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(PermissionError):
        check_place(tmp_path / "scores.json")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "model", "--output", "{file}/scores.json"], "a part of that path is a file"),
        (["export", "model", "{file}/plain"], "a part of that path is a file"),
        (["export", "model", "{link}"], "is a link; give a new folder"),
        (["recipes", "copy", "quickstart", "{file}/x.yaml"], "a part of that path is a file"),
        (["train", "--output", "{file}"], "Cannot make the folder"),
        (["train", "--output", "{link}/run"], "Cannot make the folder"),
        (["train", "--output", "{long}"], "is too long"),
    ],
)
def test_an_output_that_cannot_be(
    arguments: list[str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    places = {"file": tmp_path / "file", "link": tmp_path / "link", "long": tmp_path / ("x" * 300)}
    monkeypatch.setattr(sys, "argv", ["alignx-fast", *(word.format(**places) for word in arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    said = capsys.readouterr().err
    assert (stop.value.code, len(said.splitlines())) == (2, 1)
    assert words in said


def test_names_that_are_no_characters_are_read_back(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"path": "a\udcffb"})
    assert read_json(tmp_path / "a.json") == {"path": "a\udcffb"}
