"""Line-aligned files that are out of step, and encodings of either file."""

import random
from pathlib import Path

import numpy as np
import pytest

from alignx_fast.data.aligned import aligned_records, last_in_step
from alignx_fast.errors import UserError

RNG = random.Random(0)
ENGLISH = ["word " * RNG.randint(1, 30) + str(i) for i in range(200)]
GERMAN = [("Wörter" * len(text.split()) + " " * RNG.randint(0, 3) + "." * (RNG.randint(0, 9))) for text in ENGLISH]


def written(folder: Path, english: list[str], german: list[str], encoding: str = "utf-8") -> tuple[str, str]:
    one, two = folder / "t.en", folder / "t.de"
    one.write_text("".join(f"{text}\n" for text in english), encoding="utf-8")
    two.write_text("".join(f"{text}\n" for text in german), encoding=encoding)
    return str(one), str(two)


def refusal(paths: tuple[str, str]) -> str:
    with pytest.raises(UserError) as caught:
        list(aligned_records(*paths))
    return str(caught.value)


@pytest.mark.parametrize("line", [1, 2, 100, 199])
@pytest.mark.parametrize("missing", [1, 3])
def test_the_first_line_that_is_out_of_step_is_shown(tmp_path: Path, line: int, missing: int) -> None:
    """The line is found, or one close by where neighbouring lines have much the same length."""
    for swap in (False, True):
        english, german = (GERMAN, ENGLISH) if swap else (ENGLISH, GERMAN)
        at = min(line, 200 - missing) - 1
        message = refusal(written(tmp_path, english, [*german[:at], *german[at + missing :]]))
        assert f"t.en has 200 lines and {tmp_path}/t.de {200 - missing}: line-aligned files must" in message
        if line < 199:
            found = int(message.split("From line ")[1].split(" ")[0])
            assert abs(found - line) <= 2
            assert message.endswith('".')


def test_empty_lines_tell_exactly_where() -> None:
    lengths = np.array([40, 52, 38, 47, 61, 44, 50, 39])
    assert last_in_step(lengths, np.insert(lengths, 3, 0)) == 3
    assert last_in_step(np.insert(lengths, 5, [0, 0]), lengths) == 5


def test_the_two_lines_are_shown_shortened(tmp_path: Path) -> None:
    english = [
        "Yes.",
        "This sentence is so long that it cannot be shown as a whole in one message.",
        "No.",
        "Thank you very much, sir.",
    ]
    message = refusal(written(tmp_path, english, ["Ja.", "Nein.", "Haben Sie vielen Dank, Herr."]))
    assert (
        'From line 2 on they no longer fit each other by length: "This sentence is so long that it cannot be shown as a whole ..." beside "Nein.".'
        in message
    )


@pytest.mark.parametrize("left", [0, 1, 150])
def test_a_file_that_was_cut_short_is_said_to_be(tmp_path: Path, left: int) -> None:
    message = refusal(written(tmp_path, ENGLISH, GERMAN[:left]))
    assert f"t.de {left}: line-aligned files must have the same number." in message
    assert left < 150 or "seems to be cut short" in message


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_one_side_may_be_in_another_encoding(tmp_path: Path, encoding: str) -> None:
    rows = list(aligned_records(*written(tmp_path, ENGLISH, GERMAN, encoding)))
    assert [row["tgt"] for _, row in rows] == GERMAN


def test_latin_1_on_one_side_is_refused_with_file_and_line(tmp_path: Path) -> None:
    german = ["Ja.", "Nein.", "Schöne Grüße.", "Gut."]
    message = refusal(written(tmp_path, ["Yes.", "No.", "Greetings.", "Good."], german, "latin-1"))
    assert message == f"{tmp_path}/t.de:3 is not UTF-8 (byte 0xf6 at 3). Convert the file with iconv."
