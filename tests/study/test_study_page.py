"""The tables and the page of a study, from scores and logs as runs leave them."""

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from support.studies import read_study, study_tree

from alignx_fast.evaluation.results import Evaluation
from alignx_fast.files import read_json, write_json
from alignx_fast.study.layout import Layout, seeds_of
from alignx_fast.study.page import write_results
from alignx_fast.study.results import contestants, mean_cost, results_of
from alignx_fast.study.spec import Study, Variant, merged

SKILL = {"base": 0.0, "plain": 2.0, "short": 1.0, "strong": 9.0}
LAYERS = 5


def scores(variant: Variant, seed: int | None) -> dict[str, object]:
    """Scores of a model that is as good as its name says, with a little noise of the seed."""
    noise = random.Random(f"{variant.name} {seed}")
    skill = SKILL[variant.name] + noise.uniform(-0.3, 0.3)
    by_layer = [0.02 * skill * layer * (LAYERS - layer) / 4 for layer in range(LAYERS)]
    directions = {
        f"{a}-{b}": {"bleu": skill, "chrf++": 10 + skill + noise.random(), "n": 8, "off_target": 0.1}
        for a, b in (("en", "de"), ("de", "en"))
    }
    return {
        "when": "now",
        "align_layer": 2,
        "num_layers": LAYERS - 1,
        "languages": ["de", "en"],
        "sentences": 8,
        "retrieval": {"chance": 0.125, "average": by_layer[2], "pairs": {"de-en": {"top1": by_layer[2], "n": 8}}},
        "layers": {
            "similarity": [0.9] * LAYERS,
            "unrelated": [0.9 - y for y in by_layer],
            "retrieval": by_layer,
            "cka": by_layer,
        },
        "perplexity": {code: {"perplexity": 9.0, "bits_per_character": 3 - 0.1 * skill} for code in ("de", "en")},
        "translation": directions,
        "notes": ["A note of an evaluation."],
        "seconds": 90.0,
    }


def log_lines(variant: Variant) -> list[dict[str, object]]:
    lines: list[dict[str, object]] = []
    for stage in variant.settings.stages:
        for step in range(0, 50, 10):
            dev = {"event": "dev", "dev_loss": 5 - step / 20, "dev_loss_ntp": 5 - step / 20}
            if stage == "align":
                dev |= {"dev_loss_contrastive": 3 - step / 30}
            lines.append({"stage": stage, "step": step, "time": 6 * step + len(lines), **dev})
            line = {
                "stage": stage,
                "step": step + 10,
                "time": 6 * step + 6 + len(lines),
                "loss": 4.0,
                "tokens": 1000,
                "seconds": 6.0,
                "memory_gib": 1.5,
            }
            lines.append(line)
    return lines


def filled(study: Study) -> Study:
    """The study with scores and logs of all its runs."""
    layout = Layout(study.output)
    for variant in study.variants:
        for seed in seeds_of(study, variant):
            write_json(layout.evaluation(variant, seed), Evaluation.from_json(scores(variant, seed)).to_json())
            if seed is not None:
                run = layout.run(variant, seed)
                run.mkdir(parents=True)
                (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log_lines(variant)))
    return study


@pytest.fixture
def study(data: Path, tmp_path: Path) -> Study:
    tree = merged(study_tree(data, tmp_path / "out"), {"seeds": [0, 1, 2], "variants.strong": {"align.apart.weight": 1}})
    return filled(read_study(tree, tmp_path))


class Page(HTMLParser):
    """Collects what a page refers to, and its tags that are not closed."""

    VOID = ("meta", "link", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.references += [value or "" for name, value in attrs if name in ("href", "src", "xlink:href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_has_all_parts_and_needs_nothing_from_outside(study: Study) -> None:
    page = write_results(study)
    assert page is not None
    text = page.read_text()
    parsed = Page(text)
    assert parsed.open == []
    assert all(reference.startswith(("#", "data:")) for reference in parsed.references)
    assert "<script" not in text
    for title in ("Summary", "Gains by direction", "Layers", "Learning", "Cost", "Variants", "All scores"):
        assert f"<h2>{title}</h2>" in text
    assert text.count("<svg") == 3 + 2 + 3  # gains of three variants; two of layers; three losses
    assert "A note of an evaluation." in text
    assert not re.search(r"\bnan\b", text)


def test_the_comparison_is_over_seeds_and_against_the_baseline(study: Study) -> None:
    write_results(study)
    comparison = read_json(study.output / "comparison.json")
    chrf = next(row for row in comparison["rows"] if row["name"] == "chrF++")
    assert chrf["cells"]["strong"]["seeds"] == 3
    assert chrf["cells"]["base"]["seeds"] == 1
    difference = chrf["differences"]["strong"]
    assert difference["value"] == pytest.approx(7, abs=1.5)
    assert difference["interval"]["low"] > 0
    assert all((study.output / f"comparison.{ending}").stat().st_size for ending in ("csv", "md", "tex"))


def test_what_failed_is_left_out_and_named(study: Study) -> None:
    layout = Layout(study.output)
    _, plain, short, strong = study.variants
    layout.evaluation(short, 1).unlink()
    for seed in study.seeds:
        layout.evaluation(strong, seed).unlink()
    results = results_of(study)
    assert [(each.name, len(each.evaluations)) for each in contestants(results)] == [("base", 1), ("plain", 2), ("short", 2)]
    page = write_results(study)
    assert page is not None
    for words in ("Without scores, and left out: strong.", "with seed 1: left out for all of them", "Only 2 seeds"):
        assert words in page.read_text()
    for seed in study.seeds:
        layout.evaluation(plain, seed).unlink()  # the baseline
        layout.evaluation(short, seed).unlink(missing_ok=True)
    assert write_results(study) is None


def test_cost_adds_up_the_lines_of_the_log(study: Study) -> None:
    base, plain, *_ = results_of(study)
    assert mean_cost(plain, "align", lambda cost: cost.tokens) == 5000
    assert mean_cost(plain, "instruct", lambda cost: cost.seconds) == 30
    assert mean_cost(plain, "align", lambda cost: cost.joules) is None
    assert mean_cost(plain, "align", lambda cost: cost.peak_gib) == 1.5
    assert mean_cost(base, "align", lambda cost: cost.seconds) is None
