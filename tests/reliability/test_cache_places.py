"""The cache where it cannot be written, and where several processes use it at once."""

import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from support.tokenizers import build_tokenizer

from alignx_fast.config import Settings
from alignx_fast.data import entries
from alignx_fast.data import prepare as prepare_module
from alignx_fast.data.cache import PARTIAL, building
from alignx_fast.data.prepare import prepare
from alignx_fast.errors import UserError


def settings(folder: Path, cache: Path, seed: int = 0) -> Settings:
    pairs = folder / "pairs.jsonl"
    if not pairs.exists():
        rows = [{"src_lang": "en", "tgt_lang": "de", "src": f"word {i}", "tgt": f"Wort {i}"} for i in range(30)]
        pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"parallel": [{"path": str(pairs)}], "instructions": [], "cache_dir": str(cache)}
    return Settings.model_validate({"seed": seed, "data": data})


# Places.


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    """A cache with one entry, of seed 0, on a disk that cannot be written."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", disk], check=False, capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting is not allowed here")
    try:
        prepare(settings(tmp_path, disk / "cache"), build_tokenizer(), "align")
        release()
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        yield disk / "cache"
    finally:
        release()
        subprocess.run(["umount", "-l", disk], check=True)


def release() -> None:
    """Let go of the entries that this process uses, as if it had ended."""
    for number in entries._held.values():
        os.close(number)
    entries._held.clear()


def test_a_read_only_cache_is_read(read_only: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prepared = prepare(settings(tmp_path, read_only), build_tokenizer(), "align")
    assert prepared.from_cache
    assert len(prepared.train)
    assert not caplog.text


def test_what_a_read_only_cache_lacks_is_made_for_the_run(
    read_only: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    prepare_module._temporary_cache.cache_clear()
    for _ in range(2):
        prepared = prepare(settings(tmp_path, read_only, seed=1), build_tokenizer(), "align")
        assert len(prepared.train)
        assert str(read_only) not in prepared.train.cache_files[0]["filename"]
        assert f"Cannot write to cache folder {read_only}: Read-only file system. Set data.cache_dir." in caplog.text


def test_neither_cache_nor_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    prepare_module._temporary_cache.cache_clear()

    def no_folder(*_: object, **__: object) -> None:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr(prepare_module, "TemporaryDirectory", no_folder)
    with pytest.raises(UserError, match=r"Neither the cache nor a temporary folder can be written .*: set data.cache_dir"):
        prepare(settings(tmp_path, tmp_path / "file" / "cache"), build_tokenizer(), "align")


def test_a_full_disk_is_one_sentence(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", disk], check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        with pytest.raises(UserError, match=r"Cannot write to cache folder .*No space left on device.* Set data.cache_dir"):
            prepare(settings(tmp_path, disk), build_tokenizer(), "align")
        release()
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.mark.slow
def test_the_temporary_folder_goes_with_the_process(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "tmp").mkdir()
    code = f"""
        import sys
        from pathlib import Path
        sys.path.insert(0, {str(Path(__file__).parents[1])!r})
        from reliability.test_cache_places import build_tokenizer, prepare, settings
        folder = Path({str(tmp_path)!r})
        prepare(settings(folder, folder / "file"), build_tokenizer(), "align")
        (made,) = (folder / "tmp").iterdir()
        print(len(list(made.iterdir())))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | {"TMPDIR": str(tmp_path / "tmp")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "1\n", done.stderr
    assert list((tmp_path / "tmp").iterdir()) == []


# Several processes.


def test_an_entry_that_gets_its_name_in_the_same_moment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the look and the renaming."""
    with monkeypatch.context() as patch, building(tmp_path / "result") as slow:
        (slow / "by").write_text("slow")
        (tmp_path / "result").mkdir()
        (tmp_path / "result" / "by").write_text("fast")
        patch.setattr(Path, "exists", lambda _: False)
    assert (tmp_path / "result" / "by").read_text() == "fast"
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_what_is_built_on_another_machine_is_left_alone(tmp_path: Path) -> None:
    """Until nothing was written there for a day."""
    for name in ("other-1", "other-2"):
        folder = tmp_path / f"{PARTIAL}{name}"
        folder.mkdir()
        (folder / "half").write_text("half")
    for path in (tmp_path / f"{PARTIAL}other-1" / "half", tmp_path / f"{PARTIAL}other-1"):
        os.utime(path, (1, 1))
    with building(tmp_path / "result"):
        pass
    assert {path.name for path in tmp_path.iterdir()} == {"result", f"{PARTIAL}other-2"}


def race(folder: Path, barrier: Barrier, rounds: int, failures: "multiprocessing.Queue[str]") -> None:
    """Prepare in the same moment as another process, in turn with no entry, one that is removed here and there, and a damaged one."""
    tokenizer, draw = build_tokenizer(), random.Random(os.getpid())
    try:
        for number in range(rounds):
            chosen = settings(folder, folder / "cache", seed=number // 3)
            barrier.wait(60)
            if number % 3 == 1:  # both find the entry; one of them removes it while the other may be reading
                for path in (folder / "cache").glob("align-*"):
                    if draw.random() < 0.5:
                        shutil.rmtree(path, ignore_errors=True)
            if number % 3 == 2:
                for path in (folder / "cache").glob("align-*/summary.json"):
                    path.write_text("{")
            barrier.wait(60)
            prepared = prepare(chosen, tokenizer, "align")
            assert len(prepared.train[:]["input_ids"]) == len(prepared.train) > 0
            assert prepared.summary["rows_read"] == 30
    except BaseException as error:
        failures.put(f"round {number}: {error!r}")
        barrier.abort()
        raise


@pytest.mark.slow
def test_two_builders_at_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    settings(tmp_path, tmp_path / "cache")
    barrier, failures = context.Barrier(2), context.Queue()
    processes = [context.Process(target=race, args=(tmp_path, barrier, 150, failures)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert failures.empty(), failures.get()
    assert [process.exitcode for process in processes] == [0, 0]
    assert not list((tmp_path / "cache").glob(f"{PARTIAL}*"))
