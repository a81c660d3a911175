"""`prepare` from files to a folder that training reads."""

import gzip
import json
from pathlib import Path

import pytest

from alignx_fast.config import Settings, load_settings
from alignx_fast.data.dedupe import normalise
from alignx_fast.data.gather import gather
from alignx_fast.errors import UserError
from alignx_fast.verbs.prepare import settings_for
from benchmarks.corpora import synthetic
from benchmarks.corpora.measure import REASONS
from tests.corpora.conftest import Prepare, distinct, pair, write_jsonl


def test_every_planted_fault_is_counted(tmp_path: Path, prepared: Prepare) -> None:
    files = synthetic.write(tmp_path / "synthetic", 4000, files=2)
    test_set = tmp_path / "synthetic" / "test.jsonl"
    result = prepared(sources=[{"path": str(file)} for file in files], test_sets=[{"path": str(test_set)}])
    planted = synthetic.faults(4000)
    reasons = REASONS | {"leak": f"in test set {test_set}"}
    assert result.dropped == {reasons[fault]: rows for fault, rows in planted.items()}
    assert result.card["rows"] == {"read": 4000, "kept": 4000 - sum(planted.values()), "instructions": 0}
    assert len(result.rows) == result.card["rows"]["kept"]
    assert result.card["meanings"]["largest"] == synthetic.SHARED
    assert all(len(drop["examples"]) == min(10, drop["rows"]) for drop in result.card["drops"])
    forbidden = {normalise(text) for row in synthetic.test_sentences(4000) for text in row["texts"].values()}  # type: ignore[attr-defined]
    assert not any(normalise(str(row[side])) in forbidden for row in result.rows for side in ("src", "tgt"))
    assert result.card["leak"]["check"] == "passed"


def test_the_result_depends_on_the_seed_and_not_on_threads(prepared: Prepare) -> None:
    rows = distinct(300)
    one = prepared(rows, out="one", max_per_direction=50)
    two = prepared(rows, out="two", max_per_direction=50, threads=2)
    other = prepared(rows, out="other", max_per_direction=50, seed=1)
    assert one.card["hashes"] == two.card["hashes"] != other.card["hashes"]
    assert one.dropped == other.dropped == {"beyond max_per_direction": 250}


def test_training_reads_the_folder(tmp_path: Path, prepared: Prepare) -> None:
    rows = [*distinct(30), pair("The cat number 1 sleeps.", "El gato número 1 duerme.", tgt_lang="es")]
    result = prepared(rows)
    settings = Settings.model_validate(
        {"data": {"parallel": [{"path": str(result.folder)}], "instructions": []}, "stages": ["align"]}
    )
    found = gather(settings, "align")
    assert len(found.train) + 2 * len(found.dev) == 2 * 31
    assert not found.dropped.counts
    about_cat_1 = {
        meaning
        for row, meaning in zip(found.train.rows, found.train.meanings, strict=True)
        if "número 1 " in row.src + row.tgt  # type: ignore[union-attr]
    }
    assert len(about_cat_1) <= 1


def test_a_folder_that_fails_the_check_or_was_changed_is_refused(prepared: Prepare) -> None:
    result = prepared(distinct(5))
    card = result.folder / "card.json"
    card.write_text(json.dumps(result.card | {"leak": result.card["leak"] | {"check": "failed", "rows_found": 3}}))
    with pytest.raises(UserError, match=r"holds 3 rows with sentences of a test set. Prepare it again"):
        list(result.rows)
    card.write_text(json.dumps(result.card))
    file = next((result.folder / "pairs").iterdir())
    file.write_bytes(file.read_bytes() + b"0")
    with pytest.raises(UserError, match="it was changed"):
        list(result.rows)
    file.unlink()
    with pytest.raises(UserError, match="is missing"):
        list(result.rows)


def test_what_is_prepared_is_not_prepared_again(prepared: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepared(distinct(5))
    monkeypatch.setattr("alignx_fast.corpora.run.Steps", None)
    assert prepared(distinct(5) and [], sources=[{"path": str(first.folder.parent / "pairs.jsonl")}]).card == first.card


def test_a_stopped_preparation_goes_on(tmp_path: Path, prepared: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    sources = [{"path": str(write_jsonl(tmp_path / f"{n}.jsonl", distinct(n)))} for n in (5, 6)]
    whole = prepared(sources=sources, out="whole")
    from alignx_fast.corpora import parts, run

    cleaned: list[str] = []
    clean = parts.clean

    def stop_at_second(engine, batch, tests, settings, part: Path) -> None:  # type: ignore[no-untyped-def]
        cleaned.append(part.parent.name)
        if cleaned == ["0000", "0001"]:
            raise KeyboardInterrupt
        clean(engine, batch, tests, settings, part)

    monkeypatch.setattr(parts, "clean", stop_at_second)
    with pytest.raises(KeyboardInterrupt):
        prepared(sources=sources)
    assert not (tmp_path / "out" / "card.json").exists()
    resumed = prepared(sources=sources)
    assert cleaned == ["0000", "0001", "0001"]
    assert resumed.card["hashes"] == whole.card["hashes"]
    assert not (tmp_path / "out" / run.WORK).exists()


def test_one_file_needs_no_recipe(tmp_path: Path) -> None:
    file = write_jsonl(tmp_path / "mine.jsonl", distinct(3))
    settings = settings_for(str(file), {"corpus.filters.numbers": False})
    assert [source.path for source in settings.corpus.sources] == [str(file)]
    assert settings.corpus.output == Path("data/mine")
    assert not settings.corpus.filters.numbers
    assert load_settings(None, {}).corpus.sources == []


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ({}, "corpus.sources is empty"),
        ({"sources": [{}]}, "neither a path nor the layout"),
        ({"sources": [{"path": "nowhere.jsonl"}]}, "No file nowhere.jsonl"),
    ],
)
def test_what_cannot_be_prepared_is_said(corpus: dict[str, object], message: str, prepared: Prepare) -> None:
    with pytest.raises(UserError, match=message):
        prepared(**corpus)  # type: ignore[arg-type]


def test_no_row_left_says_why(prepared: Prepare) -> None:
    with pytest.raises(UserError, match=r"no row is left. Dropped: 1 numbers out of step"):
        prepared([pair("In 1984", "Im Jahr 1985")])
    with pytest.raises(UserError, match=r"no row is left. Dropped: 1 empty text"):
        prepared([pair("In 1984", " ")])


def test_a_disk_that_is_too_small_is_said_before(prepared: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 100})())
    with pytest.raises(UserError, match=r"needs about 0.0 GB of disk and 0.0 GB are free"):
        prepared(distinct(50))


@pytest.mark.parametrize("name", ["cut.jsonl.gz", "cut.jsonl.bz2", "cut.jsonl.xz", "cut.jsonl.zst", "cut.parquet"])
def test_a_source_that_was_cut_is_one_sentence(name: str, tmp_path: Path, prepared: Prepare) -> None:
    """Before its rows are read its size is estimated."""
    (tmp_path / name).write_bytes(gzip.compress(b"x" * 1000)[:20])
    with pytest.raises(UserError, match=r"is damaged or not|Cannot read .* as Parquet"):
        prepared(sources=[{"path": str(tmp_path / name)}])


def test_a_language_that_no_row_has_is_refused(prepared: Prepare) -> None:
    with pytest.raises(UserError, match=r"between lb and another .* there are rows in de, en\. Leave lb out"):
        prepared(distinct(3), languages=["en", "de", "lb"])


def test_a_layout_that_is_none_is_refused_with_those_there_are() -> None:
    with pytest.raises(UserError, match=r"`corpus.sources.0.layout` is 'opus-101': input should be 'auto', 'opus-100'"):
        load_settings(None, {"corpus.sources": [{"layout": "opus-101"}]})
