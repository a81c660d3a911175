"""What a run writes down of the data cards of its sources."""

from pathlib import Path

from alignx_fast.config import DataSettings
from alignx_fast.data.cards import short_cards
from tests.corpora.conftest import Prepare, distinct, pair, write_jsonl


def test_the_cards_of_prepared_folders_in_short(prepared: Prepare, tmp_path: Path) -> None:
    test = write_jsonl(tmp_path / "test.jsonl", [pair("The test says this.", "Die Probe sagt dies.")])
    rows = [*distinct(5), pair("The test says this.", "Der Test sagt das."), pair("Hotel", "HOTEL")]
    result = prepared(rows, test_sets=[{"path": str(test)}])
    unprepared = write_jsonl(tmp_path / "plain.jsonl", distinct(2))
    sources = [{"path": str(result.folder)}, {"path": str(unprepared)}]
    cards = short_cards(DataSettings.model_validate({"parallel": sources, "instructions": sources}))
    assert cards == {
        str(result.folder): {
            "rows": {"read": 7, "kept": 5, "instructions": 0, "meanings": result.card["meanings"]["count"]},
            "leak": {"check": "passed", "test_sentences": 2},
            "dropped": {f"in test set {test}": 1, "same text on both sides": 1},
            "fingerprint": result.card["fingerprint"],
        }
    }


def test_a_folder_without_test_sets_says_so(prepared: Prepare) -> None:
    result = prepared(distinct(3))
    (card,) = short_cards(DataSettings.model_validate({"parallel": [{"path": str(result.folder)}]})).values()
    assert card["leak"] == {"check": "no test set was named", "test_sentences": 0}
    assert card["dropped"] == {}
