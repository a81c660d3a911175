"""What the data cards of prepared folders say in short, for the folder of a run that trains on them."""

from pathlib import Path
from typing import Any

from alignx_fast.config import DataSettings
from alignx_fast.data.prepared import CARD_FILE, is_prepared
from alignx_fast.files import read_object


def short_cards(data: DataSettings) -> dict[str, dict[str, Any]]:
    """Counts, dropped rows by reason and fingerprint of every prepared folder among the sources, by its path."""
    paths = dict.fromkeys([*(source.path for source in data.parallel), *(source.path for source in data.instructions)])
    folders = {path: Path(path).expanduser() for path in paths}
    cards = {path: read_object(folder / CARD_FILE) for path, folder in folders.items() if is_prepared(folder)}
    return {path: _short(card) for path, card in cards.items() if card is not None}


def _short(card: dict[str, Any]) -> dict[str, Any]:
    return {
        "rows": card["rows"] | {"meanings": card["meanings"]["count"]},
        "leak": {
            "check": card["leak"]["check"] if card["leak"]["sentences"] else "no test set was named",
            "test_sentences": sum(card["leak"]["sentences"].values()),
        },
        "dropped": {drop["reason"]: drop["rows"] for drop in card["drops"] if drop["rows"]},
        "fingerprint": card["fingerprint"],
    }
