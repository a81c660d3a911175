"""Models side by side."""

import csv
import io
import json
from pathlib import Path

import pytest

from alignx_fast.comparison.compare import Comparison, Contestant, compare
from alignx_fast.comparison.write import as_csv, as_latex, as_markdown, write_tables
from alignx_fast.errors import UserError
from alignx_fast.evaluation.results import (
    DirectionTranslation,
    Evaluation,
    Interval,
    LanguagePerplexity,
    MonolingualScore,
    PairRetrieval,
    Retrieval,
    TranslatedSentence,
)


def evaluation(chrf: float, top1: float, bits: float = 2.0) -> Evaluation:
    """Scores of one direction, one pair and one language."""
    return Evaluation(
        sentences=50,
        translation={"en-sw": DirectionTranslation(bleu=chrf / 2, chrf=chrf, n=20)},
        retrieval=Retrieval(average=top1, pairs={"en-sw": PairRetrieval(top1=top1, n=50)}),
        perplexity={"sw": LanguagePerplexity(perplexity=9.0, bits_per_character=bits, tokens=100)},
    )


@pytest.fixture
def table() -> Comparison:
    """An untrained model, and two recipes with three seeds: one always better by about three, one better or worse."""
    base = Contestant("base", (evaluation(10.0, 0.1),))
    better = Contestant("better", tuple(evaluation(13.0 + 0.1 * seed, 0.5 + 0.01 * seed) for seed in range(3)))
    unclear = Contestant("un_clear", tuple(evaluation(10.0 + change, 0.1) for change in (-3.0, 0.5, 3.0)))
    return compare([base, better, unclear], baseline="base")


def test_means_intervals_and_differences(table: Comparison) -> None:
    """A mean over seeds, its interval by Student's t, and a difference that is clear only where its interval leaves out zero."""
    row = next(row for row in table.rows if row.name == "chrF++")
    cell, difference = row.cells["better"], row.differences["better"]
    assert (cell.value, cell.seeds, cell.n) == (pytest.approx(13.1), 3, 20)
    assert cell.interval is not None
    assert cell.interval.high - cell.value == pytest.approx(4.303 * 0.1 / 3**0.5)
    assert difference.value == pytest.approx(3.1)
    assert difference.is_clear
    assert not row.differences["un_clear"].is_clear
    assert "base" not in row.differences


def test_only_what_all_models_have_is_compared() -> None:
    """An average over other directions would be another number."""
    more = evaluation(10.0, 0.1).model_copy(
        update={"translation": {d: DirectionTranslation(bleu=50, chrf=50, n=20) for d in ("en-sw", "en-de")}}
    )
    table = compare([Contestant("a", (evaluation(10.0, 0.1),)), Contestant("b", (more,))])
    assert [row.name for row in table.rows if row.group == "translation"] == ["chrF++", "BLEU", "chrF++ en-sw", "BLEU en-sw"]


def test_two_models_are_tested_on_their_sentences() -> None:
    """Single evaluations get sacrebleu's p-values; a baseline without the same sentences cannot be compared."""
    references = [f"the {word} is on the table today" for word in ("cat", "dog", "book", "lamp", "cup", "pen", "hat", "bag")]
    made = {}
    for name, answers in (("good", references), ("bad", [reference[:9] for reference in references])):
        examples = [TranslatedSentence(source="-", reference=r, hypothesis=a) for r, a in zip(references, answers, strict=True)]
        scores = DirectionTranslation(bleu=0.0, chrf=len(answers[0]), n=8, tokenizer="13a", examples=tuple(examples))
        made[name] = Contestant(name, (Evaluation(translation={"de-en": scores}),))
    table = compare([made["bad"], made["good"]], baseline="bad")
    row = table.rows[0]
    assert row.differences["good"].p is not None
    assert row.differences["good"].p < 0.05
    assert row.differences["good"].p_randomisation < 0.05
    assert all(
        difference.p is None for each in table.rows if each.group != "translation" for difference in each.differences.values()
    )
    assert "paired bootstrap" in table.notes[0]
    assert row.differences["good"].is_clear


def test_text_in_one_language_by_average_and_by_language() -> None:
    """The averages, then each language with its interval; a language that cannot be told apart has no share."""
    sw = MonolingualScore(n=4, right_language=0.5, right_language_interval=Interval(low=0.1, high=0.9), repetition=0.2, chrf=10.0)
    te = MonolingualScore(n=2, repetition=0.4, chrf=20.0)
    table = compare([Contestant("a", (Evaluation(continuations={"sw": sw, "te": te}, answers={"sw": sw}),))])
    cells = {(row.group, row.name): row.cells["a"] for row in table.rows}
    assert ("continuations", "right language") not in cells
    assert ("continuations", "right language te") not in cells
    assert cells["continuations", "repeated 4-grams"].value == pytest.approx(0.3)
    assert cells["continuations", "chrF"].n == 6
    assert cells["continuations", "right language sw"].interval == Interval(low=0.1, high=0.9)
    assert cells["answers", "chrF sw"].value == 10.0


def test_without_translation_there_is_no_line_for_it() -> None:
    """A part that was not scored is no zero."""
    bare = evaluation(10.0, 0.1).model_copy(update={"translation": {}})
    assert not [row for row in compare([Contestant("a", (bare,))]).rows if row.group == "translation"]


def test_every_form_says_the_same(table: Comparison, tmp_path: Path) -> None:
    """JSON can be read back, CSV is in full precision, Markdown and LaTeX mark what is clear and escape names."""
    files = write_tables(table, tmp_path / "new")
    assert [file.name for file in files] == ["comparison.json", "comparison.csv", "comparison.md", "comparison.tex"]
    assert Comparison.model_validate(json.loads(files[0].read_text())) == table
    rows = list(csv.DictReader(io.StringIO(as_csv(table))))
    better = next(row for row in rows if row["metric"] == "chrF++" and row["model"] == "better")
    assert float(better["value"]) == pytest.approx(13.1)
    assert float(better["difference"]) == pytest.approx(3.1)
    assert "13.1 ± 0.2 (**+3.1**)" in as_markdown(table)
    assert "| top-1 at the align layer (%) | 10.0 | 51.0" in as_markdown(table)
    assert r"\textbf{+3.1}" in as_latex(table)
    assert r"un\_clear" in as_latex(table)
    assert r"base (baseline)" in as_latex(table)


@pytest.mark.parametrize(
    ("models", "baseline", "words"),
    [
        ([("a", 1), ("a", 1)], None, "Two models are called 'a'"),
        ([("a", 1), ("b", 0)], None, "b has no evaluation"),
        ([("a", 1)], "c", "The baseline 'c' is none of the models: a."),
    ],
)
def test_what_cannot_be_compared(models: list[tuple[str, int]], baseline: str | None, words: str) -> None:
    """One sentence."""
    contestants = [Contestant(name, (evaluation(1.0, 0.1),) * count) for name, count in models]
    with pytest.raises(UserError, match=words):
        compare(contestants, baseline)
