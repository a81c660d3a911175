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
