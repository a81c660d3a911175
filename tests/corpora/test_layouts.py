"""Published data sets in their layouts, on tiny files of our own; archives; what the hub streams."""

import gzip
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from alignx_fast.corpora import hub
from alignx_fast.data.prepared import INSTRUCTIONS, prepared_records
from alignx_fast.errors import UserError
from tests.corpora.conftest import Prepare

ENGLISH = [f"The house number {i} is old." for i in range(1, 5)]
GERMAN = [f"Das Haus Nummer {i} ist alt." for i in range(1, 5)]
SWAHILI = [f"Nyumba namba {i} ni ya zamani." for i in range(1, 5)]


def write(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def opus(root: Path) -> Path:
    base = root / "opus-100-corpus" / "v1.0" / "supervised"
    for split in ("train", "dev"):
        write(base / "de-en" / f"opus.de-en-{split}.de", GERMAN)
        write(base / "de-en" / f"opus.de-en-{split}.en", ENGLISH)
        write(base / "en-sw" / f"opus.en-sw-{split}.en", ENGLISH)
        write(base / "en-sw" / f"opus.en-sw-{split}.sw", SWAHILI)
    return root


def flores(root: Path, english: str, german: str) -> Path:
    for split in ("dev", "devtest"):
        write(root / split / f"{english}.{split}", ENGLISH)
        write(root / split / f"{german}.{split}", GERMAN)
    return root


def ntrex(root: Path) -> Path:
    write(root / "NTREX-128" / "newstest2019-src.eng.txt", ENGLISH)
    write(root / "NTREX-128" / "newstest2019-ref.deu.txt", GERMAN)
    write(root / "NTREX-128" / "newstest2019-ref.swa.txt", SWAHILI)
    return root


def tatoeba(root: Path) -> Path:
    write(root / "v1" / "tatoeba.deu-eng.deu", GERMAN)
    write(root / "v1" / "tatoeba.deu-eng.eng", ENGLISH)
    return root


def massive(root: Path) -> Path:
    for locale, texts in (("en-US", ENGLISH), ("de-DE", GERMAN)):
        rows = [
            {"id": str(i), "locale": locale, "partition": "test" if i == 3 else "train", "utt": text}
            for i, text in enumerate(texts)
        ]
        write(root / "1.1" / "data" / f"{locale}.jsonl", [json.dumps(row) for row in rows])
    return root


def tasks(lang: str) -> list[dict[str, str]]:
    return [
        {"instruction": f"[{lang}] Count to {i}.", "input": "", "output": f"{lang} {i}", "id": f"alpaca-{i}"} for i in range(3)
    ]


def bactrian(root: Path) -> Path:
    for lang in ("de", "en"):
        (root / "data").mkdir(parents=True, exist_ok=True)
        with gzip.open(root / "data" / f"{lang}.json.gz", "wt", encoding="utf-8") as stream:
            json.dump(tasks(lang), stream)
    return root


def directions(rows: list[Any]) -> set[tuple[str, str]]:
    return {tuple(sorted((row["src_lang"], row["tgt_lang"]))) for row in rows}


def test_opus_100(tmp_path: Path, prepared: Prepare) -> None:
    result = prepared(sources=[{"layout": "opus-100", "path": str(opus(tmp_path / "opus"))}])
    assert len(result.rows) == 8
    assert {(row["src_lang"], row["tgt_lang"]) for row in result.rows} == {("de", "en"), ("en", "sw")}
    assert [source["title"] for source in result.card["sources"]] == ["opus-100 de-en", "opus-100 en-sw"]
    assert result.card["meanings"]["largest"] == 2
    one = prepared(sources=[{"layout": "opus-100", "path": str(tmp_path / "opus")}], languages=["eng", "swh"], out="one")
    assert directions(one.rows) == {("en", "sw")}


def test_opus_100_as_the_hub_keeps_it(tmp_path: Path, prepared: Prepare) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = [{"de": a, "en": b} for a, b in zip(GERMAN, ENGLISH, strict=True)]
    (tmp_path / "opus" / "de-en").mkdir(parents=True)
    pq.write_table(pa.table({"translation": rows}), tmp_path / "opus" / "de-en" / "train-00000-of-00001.parquet")
    result = prepared(sources=[{"layout": "opus-100", "path": str(tmp_path / "opus")}])
    assert {(row["src_lang"], row["tgt_lang"]) for row in result.rows} == {("de", "en")}
    assert len(result.rows) == 4


@pytest.mark.parametrize(
    ("layout", "make", "split", "rows"),
    [
        ("flores-101", lambda root: flores(root, "eng", "deu"), "devtest", 4),
        ("flores-200", lambda root: flores(root, "eng_Latn", "deu_Latn"), "dev", 4),
        ("ntrex", ntrex, "test", 12),
        ("tatoeba", tatoeba, "test", 4),
        ("massive", massive, "train", 3),
    ],
)
def test_data_sets_of_sentences(tmp_path: Path, prepared: Prepare, layout: str, make: Any, split: str, rows: int) -> None:
    source = {"layout": layout, "path": str(make(tmp_path / "set")), "split": split}
    result = prepared(sources=[source])
    assert len(result.rows) == rows
    assert result.card["sources"][0]["licence"] != "not stated"


def test_a_named_test_set_keeps_its_sentences_out(tmp_path: Path, prepared: Prepare) -> None:
    held_out = {"layout": "flores-200", "path": str(flores(tmp_path / "flores", "eng_Latn", "deu_Latn")), "split": "dev"}
    write(
        tmp_path / "flores" / "dev" / "eng_Latn.dev",
        [ENGLISH[0].upper(), "Nobody says this here.", *ENGLISH[3:], "Nor this one."],
    )
    write(tmp_path / "flores" / "dev" / "deu_Latn.dev", ["Das sagt hier keiner."] * 4)
    result = prepared(
        sources=[{"layout": "opus-100", "path": str(opus(tmp_path / "opus"))}], test_sets=[held_out], filters={"near_leaks": None}
    )
    assert result.dropped == {"in test set flores-200 dev": 4}
    assert {row["src"] for row in result.rows} | {row["tgt"] for row in result.rows} == {
        *ENGLISH[1:3],
        *GERMAN[1:3],
        *SWAHILI[1:3],
    }


def test_near_leaks_are_found(tmp_path: Path, prepared: Prepare) -> None:
    long = "Scientists in the north have found that the old glacier loses more ice every summer than anybody expected"
    write(tmp_path / "test.jsonl", [json.dumps({"texts": {"en": long}})])
    rows = [
        {
            "src_lang": "en",
            "tgt_lang": "de",
            "src": f"{long} so far.",
            "tgt": "Forscher haben im Norden gefunden, dass der Gletscher mehr Eis verliert.",
        },
        {
            "src_lang": "en",
            "tgt_lang": "de",
            "src": "Scientists in the south have found no glacier at all.",
            "tgt": "Forscher im Süden fanden keinen Gletscher.",
        },
    ]
    result = prepared(rows, test_sets=[{"path": str(tmp_path / "test.jsonl")}])
    assert result.dropped == {f"in test set {tmp_path / 'test.jsonl'}": 1}


@pytest.mark.parametrize("ending", [".tar.gz", ".zip"])
def test_an_archive_is_read_and_a_cut_one_refused(tmp_path: Path, prepared: Prepare, ending: str) -> None:
    root, archive = opus(tmp_path / "opus"), tmp_path / f"opus{ending}"
    files = [file for file in root.rglob("*") if file.is_file()]
    if ending == ".zip":
        with zipfile.ZipFile(archive, "w") as zipped:
            for file in files:
                zipped.write(file, file.relative_to(root))
    else:
        with tarfile.open(archive, "w:gz") as tar:
            for file in files:
                tar.add(file, file.relative_to(root))
    source = {"layout": "opus-100", "path": str(archive)}
    result = prepared(sources=[source])
    assert len(result.rows) == 8
    assert sorted(entry.name for entry in result.folder.iterdir()) == ["card.html", "card.json", "pairs", "plan.sql"]
    archive.write_bytes(archive.read_bytes()[:-700])
    with pytest.raises(UserError, match="damaged or was cut short"):
        prepared(sources=[source], out="cut")


def test_bactrian_x_and_alpaca(tmp_path: Path, prepared: Prepare) -> None:
    alpaca = tmp_path / "alpaca" / "alpaca_data.json"
    alpaca.parent.mkdir()
    alpaca.write_text(json.dumps([{"instruction": "Add 1 and 1.", "input": "", "output": "2"}] * 2))
    sources = [{"layout": "bactrian-x", "path": str(bactrian(tmp_path / "bactrian"))}, {"layout": "alpaca", "path": str(alpaca)}]
    result = prepared(sources=sources)
    rows = [row for _, row in prepared_records(str(result.folder), INSTRUCTIONS)]
    assert result.card["rows"] == {"read": 8, "kept": 0, "instructions": 7}
    assert result.dropped == {"duplicate instruction": 1}
    groups = {row["gid"] for row in rows if "Count to 1" in str(row["instruction"])}
    assert len(groups) == 1
    assert {row["lang"] for row in rows} == {"de", "en"}


def test_a_language_that_is_missing_is_named_with_the_nearest(tmp_path: Path, prepared: Prepare) -> None:
    source = {"layout": "opus-100", "path": str(opus(tmp_path / "opus"))}
    with pytest.raises(UserError, match=r"opus-100 has no `ss`. Nearest are sw; known are de, en, sw."):
        prepared(sources=[source], languages=["en", "ss"])
    with pytest.raises(UserError, match=r"opus-100 has no `fj`"):
        prepared(sources=[{"layout": "opus-100"}], languages=["en", "fj"])


def test_a_folder_without_the_data_set_is_refused(tmp_path: Path, prepared: Prepare) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(
        UserError, match=r"holds no files of ntrex, which are named like NTREX-128/newstest2019-ref.deu.txt. Get it from"
    ):
        prepared(sources=[{"layout": "ntrex", "path": str(tmp_path / "empty")}])
    with pytest.raises(UserError, match="No folder"):
        prepared(sources=[{"layout": "ntrex", "path": str(tmp_path / "nowhere")}])
    with pytest.raises(UserError, match="flores-101 is not streamed from the hub: get it from"):
        prepared(sources=[{"layout": "flores-101"}])
    with pytest.raises(UserError, match="has no split `test` of opus-100"):
        prepared(sources=[{"layout": "opus-100", "path": str(opus(tmp_path / "opus")), "split": "test"}])


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path, prepared: Prepare) -> None:
    root = ntrex(tmp_path / "ntrex")
    write(root / "NTREX-128" / "newstest2019-ref.deu.txt", GERMAN[:2])
    with pytest.raises(UserError, match=r"ref.deu.txt ends before line 3, and .* goes on"):
        prepared(sources=[{"layout": "ntrex", "path": str(root)}])
    opus(tmp_path / "opus")
    next((tmp_path / "opus").rglob("*train.sw")).unlink()
    with pytest.raises(UserError, match="has no second file beside it"):
        prepared(sources=[{"layout": "opus-100", "path": str(tmp_path / "opus")}])


def test_the_hub_is_streamed(prepared: Prepare, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def rows(title: str, path: str, subset: str | None, **options: str) -> Any:
        asked.append((path, subset, options))
        sides = zip(ENGLISH, GERMAN, strict=True)
        return ((f"{title}:{i}", {"translation": {"en": en, "de": de}}) for i, (en, de) in enumerate(sides))

    monkeypatch.setattr(hub, "_rows", rows)
    result = prepared(sources=[{"layout": "opus-100"}], languages=["en", "de"])
    assert asked == [("Helsinki-NLP/opus-100", "de-en", {"split": "train"})]
    assert {(row["src_lang"], row["tgt_lang"]) for row in result.rows} == {("en", "de")}
