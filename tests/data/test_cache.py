"""The cache: hit when nothing changed, miss when anything did, and never half of a result."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from support.tokenizers import CHATML, build_tokenizer

from alignx_fast.config import Settings
from alignx_fast.data import cache
from alignx_fast.data.cache import PARTIAL, building, fingerprint
from alignx_fast.data.prepare import prepare
from alignx_fast.errors import UserError


@pytest.fixture
def config(tmp_path):
    rows = [{"src_lang": "en", "tgt_lang": "de", "src": f"word {i}", "tgt": f"Wort {i}"} for i in range(30)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return Settings.model_validate(
        {"data": {"parallel": [{"path": str(path)}], "instructions": [], "cache_dir": str(tmp_path / "cache")}}
    )


def test_the_second_time_comes_from_the_cache_and_is_the_same(config):
    tokenizer = build_tokenizer()
    first, second = prepare(config, tokenizer, "align"), prepare(config, build_tokenizer(), "align")
    assert (first.from_cache, second.from_cache) == (False, True)
    assert first.train[:] == second.train[:]
    assert first.dev[:] == second.dev[:]
    assert (first.summary, first.eval_meanings, first.languages) == (second.summary, second.eval_meanings, second.languages)


def test_using_a_tokenizer_does_not_change_its_fingerprint(config):
    tokenizer = build_tokenizer()
    before = fingerprint(config, tokenizer, "align")
    tokenizer(["a", "b c d"], padding=True, truncation=True, max_length=2)
    assert fingerprint(config, tokenizer, "align") == before


def touch(config, tokenizer):
    path = config.data.parallel[0].path
    os.utime(path, ns=(1, os.stat(path).st_mtime_ns + 1))


def grow(config, tokenizer):
    with open(config.data.parallel[0].path, "a") as stream:
        stream.write('{"src_lang": "en", "tgt_lang": "de", "src": "a", "tgt": "b"}\n')


CHANGES = {
    "file time": touch,
    "file content": grow,
    "cutoff": lambda c, t: setattr(c.data, "max_length", 100),
    "directions": lambda c, t: setattr(c.data, "both_directions", False),
    "languages": lambda c, t: setattr(c.data, "languages", ["en", "de"]),
    "dev size": lambda c, t: setattr(c.data, "dev_pairs", 2),
    "row limit": lambda c, t: setattr(c.data.parallel[0], "max_rows", 20),
    "seed": lambda c, t: setattr(c, "seed", 1),
    "chat template": lambda c, t: setattr(t, "chat_template", CHATML),
    "vocabulary": lambda c, t: t.add_tokens(["word"]),
    "end token": lambda c, t: setattr(t, "eos_token", "<s>"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_shapes_the_data_changes_the_fingerprint(config, change):
    tokenizer = build_tokenizer()
    before = fingerprint(config, tokenizer, "align")
    CHANGES[change](config, tokenizer)
    assert fingerprint(config, tokenizer, "align") != before


def test_stage_and_code_change_the_fingerprint(config, monkeypatch):
    tokenizer = build_tokenizer()
    before = fingerprint(config, tokenizer, "align")
    assert fingerprint(config, tokenizer, "instruct") != before
    monkeypatch.setattr(cache, "_code_state", lambda: "other code")
    assert fingerprint(config, tokenizer, "align") != before


def test_where_the_cache_lies_and_how_it_is_trained_do_not(config):
    tokenizer = build_tokenizer()
    before = fingerprint(config, tokenizer, "align")
    config.data.cache_dir = config.data.cache_dir / "elsewhere"
    config.align.learning_rate = 1.0
    assert fingerprint(config, tokenizer, "align") == before


def test_a_failure_leaves_nothing(tmp_path):
    def fail():
        with building(tmp_path / "cache" / "result") as folder:
            (folder / "half").write_text("half")
            raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        fail()
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_killed_process_leaves_no_result_and_the_next_one_cleans_up(tmp_path):
    code = f"""
        import os, signal
        from pathlib import Path
        from alignx_fast.data.cache import building
        with building(Path({str(tmp_path)!r}) / "result") as folder:
            (folder / "half").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=False)
    assert done.returncode == -signal.SIGKILL
    (leftover,) = tmp_path.iterdir()
    assert leftover.name.startswith(PARTIAL)
    with building(tmp_path / "result") as folder:
        (folder / "whole").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
    assert [path.name for path in (tmp_path / "result").iterdir()] == ["whole"]


def test_whoever_finishes_first_wins(tmp_path):
    with building(tmp_path / "result") as slow:
        (slow / "by").write_text("slow")
        with building(tmp_path / "result") as fast:
            (fast / "by").write_text("fast")
    assert (tmp_path / "result" / "by").read_text() == "fast"
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"Set data\.cache_dir"), building(tmp_path / "file" / "result"):
        pass
