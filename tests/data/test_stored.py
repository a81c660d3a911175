"""Rows in a file: what was put in comes out, in any order and either direction, and nothing else of it stays in memory."""

import gc
import json
from functools import partial

import numpy as np
import pytest
from support.tokenizers import build_tokenizer

from alignx_fast.config import Settings
from alignx_fast.data import stored
from alignx_fast.data.gather import gather
from alignx_fast.data.prepare import prepare
from alignx_fast.data.rows import Instruction, Pair
from alignx_fast.data.stored import Rows, Store, joined

PAIRS = [Pair("en", "de", f"tea {i}", f"Tee\n{i} ☕", None if i % 2 else f"g{i}", f"odd\udce9name.jsonl:{i}") for i in range(20)]
TASKS = [Instruction(f"Say {i}.", "", f"I say {i}.", lang, f"tasks.jsonl:{i}") for i, lang in enumerate(["sw", None, "fr"])]


@pytest.fixture(params=[100, stored.IN_MEMORY_BYTES], ids=["file", "memory"])
def store(request, tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "IN_MEMORY_BYTES", request.param)
    return Store(tmp_path)


def test_rows_come_out_as_they_went_in(store, tmp_path):
    everything = [*PAIRS, *TASKS]
    for number, row in enumerate(everything):
        assert store.append(row) == number
        assert store[number // 2] == everything[number // 2], "reading between two writes harms neither"
    order = np.random.default_rng(0).permutation(len(everything))
    assert [store[number] for number in order] == [everything[number] for number in order]
    assert list(tmp_path.iterdir()) == [], "the file has no name that a killed process could leave"


def test_languages_are_those_of_the_chosen_rows(store):
    numbers = np.array([store.append(row) for row in [*PAIRS, *TASKS]])
    assert store.languages(numbers) == {"en", "de", "sw", "fr"}
    assert store.languages(numbers[-3:-1]) == {"sw"}
    assert store.languages(numbers[:0]) == set()


def test_chosen_rows_are_turned_and_joined(store):
    pairs = Rows.of(store, np.array([store.append(pair) for pair in PAIRS]), np.arange(20))
    tasks = Rows.of(store, np.array([store.append(task) for task in TASKS]), np.arange(20, 23))
    some = pairs.take(np.array([3, 3, 0])).turn(np.array([False, True, True]))
    turned = [Pair("de", "en", pair.tgt, pair.src, pair.group, pair.where) for pair in PAIRS]
    both = joined(some, tasks)
    assert list(both.rows) == both.rows[:] == [PAIRS[3], turned[3], turned[0], *TASKS]
    assert both.meanings.tolist() == [3, 3, 0, 20, 21, 22]
    assert some.turn(np.ones(3, dtype=bool)).rows[:] == [turned[3], PAIRS[3], PAIRS[0]]
    assert some == some.take(np.arange(3)) != pairs.take(np.array([3, 3, 0]))


def test_a_full_disk_is_an_error_once(tmp_path, monkeypatch):
    monkeypatch.setattr(stored, "IN_MEMORY_BYTES", 100)
    full = partial(open, "/dev/full", "w+b", 50)
    monkeypatch.setattr(stored.tempfile, "TemporaryFile", lambda *_, **__: full())
    store = Store(tmp_path)
    with pytest.raises(OSError, match="No space left"):
        [store.append(pair) for pair in PAIRS]
    del store
    gc.collect()


@pytest.fixture
def settings(tmp_path):
    rows = [{"src_lang": "en", "tgt_lang": "de", "src": f"word {i}", "tgt": f"Wort {i}"} for i in range(300)]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    data = {"parallel": [{"path": str(tmp_path / "pairs.jsonl")}], "instructions": [], "cache_dir": str(tmp_path / "cache")}
    return Settings.model_validate({"data": data})


def test_gathered_rows_are_no_objects_in_memory(settings):
    def pairs():
        gc.collect()
        return sum(type(thing) is Pair for thing in gc.get_objects())

    before = pairs()
    gathered = gather(settings, "align")
    assert len(gathered.train) == 540
    assert pairs() - before < 10


def test_large_data_leave_nothing_beside_their_entry(settings, monkeypatch):
    small = prepare(settings, build_tokenizer("byte_bpe"), "align").train[:]
    monkeypatch.setattr(stored, "IN_MEMORY_BYTES", 1)
    (entry,) = settings.data.cache_dir.iterdir()
    entry.rename(entry.with_name("moved"))
    large = prepare(settings, build_tokenizer("byte_bpe"), "align").train[:]
    assert small == large
    assert {path.name for path in settings.data.cache_dir.iterdir()} == {"moved", entry.name}
    names = ("train/data-00000-of-00001.arrow", "train/state.json", "dev/state.json")
    assert all((entry / name).read_bytes() == (entry.with_name("moved") / name).read_bytes() for name in names)
