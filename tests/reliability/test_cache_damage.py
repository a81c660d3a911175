"""Whatever happens to an entry of the cache is named, and the data is that of an undamaged one."""

import itertools
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.tokenizers import build_tokenizer

from alignx_fast.config import Settings
from alignx_fast.data.prepare import Prepared, prepare

TOKENIZER = build_tokenizer()


def settings(folder: Path, seed: int = 0) -> Settings:
    """Forty pairs, two of which are dropped, with the cache beside them."""
    pairs = folder / "pairs.jsonl"
    if not pairs.exists():
        rows = [{"src_lang": "en", "tgt_lang": "de", "src": f"word {i}", "tgt": f"Wort {i}" if i > 1 else ""} for i in range(40)]
        pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"parallel": [{"path": str(pairs)}], "instructions": [], "cache_dir": str(folder / "cache")}
    return Settings.model_validate({"seed": seed, "data": data})


def content(prepared: Prepared) -> list[object]:
    """Everything that is read of an entry; the seconds it took differ."""
    assert prepared.dropped_file is not None
    summary = {key: value for key, value in prepared.summary.items() if key != "seconds"}
    rows = [prepared.train[:], prepared.dev[:]]
    return [*rows, summary, prepared.languages, prepared.eval_meanings, prepared.dropped_file.read_text()]


class Made:
    """A folder with an entry and another one, which holds other rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.content = content(prepare(settings(folder), TOKENIZER, "align"))
        (self.entry,) = (folder / "cache").iterdir()
        prepare(settings(folder, seed=1), TOKENIZER, "align")
        (self.other,) = set((folder / "cache").iterdir()) - {self.entry}
        self.copy = folder / "copy"
        shutil.copytree(self.entry, self.copy)

    def restore(self) -> None:
        """The entry as it was."""
        if self.entry.is_dir() and not self.entry.is_symlink():
            shutil.rmtree(self.entry)
        else:
            self.entry.unlink()
        shutil.copytree(self.copy, self.entry)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tmp_path_factory.mktemp("made"))


FILES = [
    *(f"{part}/{name}" for part in ("train", "dev") for name in ("data-00000-of-00001.arrow", "dataset_info.json", "state.json")),
    "summary.json",
    "eval_meanings.json",
    "dropped.jsonl",
    "entry.json",
    "files.json",
]


def flip(file: Path, draw: random.Random) -> None:
    """Turn a bit in each of up to 64 bytes."""
    changed = bytearray(file.read_bytes())
    for at in draw.sample(range(len(changed)), min(64, len(changed))):
        changed[at] ^= 1 << draw.randrange(8)
    file.write_bytes(changed)


def to_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()
    (file / "inside").write_text("x")


GARBAGE = [b"\0" * 40, b"[1, 2", b"[" * 5000, b'{"a": {"bytes": "x"}}', b"null", "\ud800".encode("utf-8", "surrogatepass")]
TO_A_FILE: dict[str, Callable[[Path, Made, random.Random], object]] = {
    "missing": lambda file, made, draw: file.unlink(),
    "empty": lambda file, made, draw: file.write_bytes(b""),
    "cut": lambda file, made, draw: file.write_bytes(file.read_bytes()[: draw.randrange(1, file.stat().st_size)]),
    "flipped": lambda file, made, draw: flip(file, draw),
    "longer": lambda file, made, draw: file.write_bytes(file.read_bytes() + draw.randbytes(draw.randrange(1, 99))),
    "folder": lambda file, made, draw: to_folder(file),
    "garbage": lambda file, made, draw: file.write_bytes(draw.choice(GARBAGE)),
    "of another entry": lambda file, made, draw: shutil.copyfile(made.other / file.relative_to(made.entry), file),
}


def replace_entry(made: Made, put: Callable[[Path], object]) -> None:
    shutil.rmtree(made.entry)
    put(made.entry)


def record(made: Made, change: Callable[[dict[str, dict[str, object]]], object]) -> None:
    file = made.entry / "files.json"
    tree = json.loads(file.read_text())
    change(tree)
    file.write_text(json.dumps(tree))


TO_THE_ENTRY: dict[str, Callable[[Made], object]] = {
    "an empty folder": lambda made: replace_entry(made, Path.mkdir),
    "a file": lambda made: replace_entry(made, lambda entry: entry.write_text("x")),
    "a link to nothing": lambda made: replace_entry(made, lambda entry: entry.symlink_to("nothing")),
    "a link to itself": lambda made: replace_entry(made, lambda entry: entry.symlink_to(entry)),
    "another entry": lambda made: replace_entry(made, lambda entry: shutil.copytree(made.other, entry)),
    "without rows": lambda made: shutil.rmtree(made.entry / "train"),
    "half removed": lambda made: [shutil.rmtree(made.entry / "dev"), (made.entry / "files.json").unlink()],
    "a file in the place of the rows": lambda made: [shutil.rmtree(made.entry / "dev"), (made.entry / "dev").write_text("x")],
    "being written": lambda made: (made.entry / "files.json").write_text("{}"),
    "a record of nothing": lambda made: (
        record(made, lambda tree: [tree.pop(name) for name in list(tree) if name != "entry.json"])
        or shutil.rmtree(made.entry / "train")
    ),
    "a record of files elsewhere": lambda made: record(made, lambda tree: tree.update({"../../nothing": {"bytes": 1}})),
    "a record of impossible files": lambda made: record(made, lambda tree: tree.update({"a\0b": {"bytes": 1}})),
    "a record of names too long": lambda made: record(made, lambda tree: tree.update({"a" * 5000: {"bytes": 1}})),
    "a record without hashes": lambda made: record(made, lambda tree: tree.update({"summary.json": {}})),
    "a record of lists": lambda made: record(made, lambda tree: tree.update({"summary.json": [1]})),
}


def survives(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    """The damage is named, the entry built again, and read the next time."""
    try:
        again = prepare(settings(made.folder), TOKENIZER, "align")
        assert not again.from_cache
        assert content(again) == made.content
        assert f"Cache entry {made.entry} is damaged, and is built again: " in caplog.text
        caplog.clear()
        once_more = prepare(settings(made.folder), TOKENIZER, "align")
        assert once_more.from_cache
        assert content(once_more) == made.content
        assert not caplog.text
    finally:
        made.restore()


def cases() -> list[object]:
    """Every damage to every file; two of three take part in the long set alone."""
    pairs = list(itertools.product(FILES, TO_A_FILE))
    return [pytest.param(*pair, id=" ".join(pair), marks=[pytest.mark.slow] if at % 3 else []) for at, pair in enumerate(pairs)]


@pytest.mark.parametrize(("name", "how"), cases())
def test_a_damaged_file_of_an_entry_is_named_and_the_entry_built_again(
    made: Made, name: str, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    file = made.entry / name
    before = file.read_bytes()
    TO_A_FILE[how](file, made, random.Random(f"{name} {how}"))
    if file.is_file() and file.read_bytes() == before:
        pytest.skip("the other entry's file is the same")
    survives(made, caplog)


@pytest.mark.parametrize("how", TO_THE_ENTRY)
def test_a_damaged_entry_is_named_and_built_again(made: Made, how: str, caplog: pytest.LogCaptureFixture) -> None:
    TO_THE_ENTRY[how](made)
    survives(made, caplog)


def test_no_damage_is_no_damage(made: Made, caplog: pytest.LogCaptureFixture) -> None:
    """The list of users and what others put beside the files change nothing."""
    for text in ("", "{", "[]", None):
        file = made.entry / "used.json"
        to_folder(file) if text is None else file.write_text(text)
        (made.entry / "notes.txt").write_text("mine")
        assert content(prepare(settings(made.folder), TOKENIZER, "align")) == made.content
    assert not caplog.text
    made.restore()
