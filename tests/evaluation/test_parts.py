"""An evaluation that was cut off goes on with the next part."""

from pathlib import Path

import pytest

from alignx_fast.evaluation.parts import Parts, joined
from alignx_fast.evaluation.results import Evaluation, LanguagePerplexity, TaskScore

TASKS = Evaluation(understanding={"task": TaskScore(score=0.5)}, notes=("said",), seconds=2.0)


def never() -> Evaluation:
    """A part that must not be taken."""
    raise AssertionError


def test_a_part_is_taken_once(tmp_path: Path) -> None:
    """Also by another process; a part that failed, one of other inputs and a damaged one are taken again."""
    file = tmp_path / "scores.parts.json"
    assert Parts(file, ["model", 1]).take("tasks", lambda: TASKS) == TASKS
    assert Parts(file, ["model", 1]).take("tasks", never).understanding == TASKS.understanding
    with pytest.raises(AssertionError):
        Parts(file, ["model", 1]).take("sentences", never)
    with pytest.raises(AssertionError):
        Parts(file, ["model", 2]).take("tasks", never)
    file.write_text(file.read_text().replace("0.5", '"half"'))
    assert Parts(file, ["model", 1]).take("tasks", lambda: TASKS) == TASKS
    file.write_text("{")
    assert Parts(file, ["model", 1]).take("tasks", lambda: TASKS) == TASKS


def test_parts_are_joined() -> None:
    """Each part brings its own scores; notes and seconds add up, and what was read from a file counts as what was taken."""
    predicted = Evaluation(perplexity={"en": LanguagePerplexity(perplexity=2.0)}, seconds=1.0)
    whole = Evaluation(model="m", notes=("first",))
    for tasks in (TASKS, Evaluation.from_json(TASKS.to_json())):
        scores = joined(whole, [predicted, tasks])
        assert (scores.model, scores.notes, scores.seconds) == ("m", ("first", "said"), 3.0)
        assert (scores.perplexity, scores.understanding) == (predicted.perplexity, TASKS.understanding)


DAMAGES = {
    "empty": lambda text: "",
    "cut": lambda text: text[: len(text) // 2],
    "zeros": lambda text: "\0" * len(text),
    "another value": lambda text: text.replace("0.5", "0.7"),
    "another name": lambda text: text.replace('"task"', '"tusk"'),
    "a list": lambda text: "[1]",
    "parts that are none": lambda text: text.replace('"parts": {', '"parts": [], "rest": {'),
    "without a hash": lambda text: text.replace("sha256", "sha255"),
    "nested": lambda text: "[" * 100_000,
}


@pytest.mark.parametrize("how", DAMAGES)
def test_damaged_parts_are_named_and_taken_again(tmp_path: Path, how: str, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "scores.parts.json"
    Parts(file, ["model"]).take("tasks", lambda: TASKS)
    damaged = DAMAGES[how](file.read_text())
    assert damaged != file.read_text()
    file.write_text(damaged)
    assert Parts(file, ["model"]).take("tasks", lambda: TASKS) == TASKS
    assert f"{file} is damaged" in caplog.text
    assert Parts(file, ["model"]).take("tasks", never).understanding == TASKS.understanding


def test_scores_that_are_no_number_are_null(tmp_path: Path) -> None:
    """JSON has no word for them, and another program could not read the file."""
    file = tmp_path / "scores.parts.json"
    spoiled = Evaluation(perplexity={"en": LanguagePerplexity(perplexity=float("inf"), bits_per_character=float("nan"))})
    Parts(file, ["model"]).take("texts", lambda: spoiled)
    assert not any(word in file.read_text() for word in ("NaN", "Infinity"))
    assert Parts(file, ["model"]).take("texts", never).perplexity == {"en": LanguagePerplexity()}
