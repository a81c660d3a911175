"""The report page: its numbers, what it says when parts are missing, and that it needs nothing from outside."""

import json
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from alignx_fast.errors import UserError
from alignx_fast.printing import OBEYED
from alignx_fast.report.write import write_report

VOID = {"meta", "link", "path", "use", "br", "img"}
LOADS = {"src", "href", "xlink:href", "srcset", "data", "action", "poster", "formaction", "background"}


class Page(HTMLParser):
    """A parsed page: text by tag, attributes, and whether all elements are closed in order."""

    def __init__(self, path: Path) -> None:
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.open: list[str] = []
        self.text: list[tuple[str, str]] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.text.append((self.open[-1], " ".join(data.split())))

    def of(self, *tags: str) -> list[str]:
        return [text for tag, text in self.text if tag in tags]

    @property
    def words(self) -> str:
        return " ".join(text for tag, text in self.text if tag != "style")


@pytest.fixture(scope="module")
def page(finished_run) -> Page:
    """The page of a finished run."""
    return Page(write_report(finished_run))


def edit(path: Path, **changes) -> None:
    value = json.loads(path.read_text())
    path.write_text(json.dumps(value | changes))


def test_nothing_external_is_referenced(run):
    path = write_report(run)
    assert path == run / "report.html"
    page = Page(path)
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert len(ids) == len(set(ids))
    for _, name, value in page.attributes:
        if name in LOADS:
            assert value.startswith("#") or value == "data:,", value
            assert not value.startswith("#") or value[1:] in ids
        assert not name.startswith("on")
        if not name.startswith("xmlns"):
            assert "//" not in value
        assert all(target in ids for target in re.findall(r"url\(#([^)]+)\)", value))
    assert not {"script", "iframe", "object", "embed"} & {tag for tag, *_ in page.attributes}
    assert "@import" not in page.source
    assert "url(" not in re.search(r"<style>.*?</style>", page.source, re.S)[0]
    assert not list(run.glob("*.partial"))


def test_headline_numbers(page):
    cards = re.findall(r'<section class="card">.*?</section>', page.source, re.S)
    shown = {re.search("<h3>(.*?)</h3>", card)[1]: re.findall(r"</?dt[^>]*>|<dd[^>]*>([^<]*)</dd>", card) for card in cards}
    shown = {name: [value for value in values if value] for name, values in shown.items()}
    assert shown["Retrieval top-1"] == ["4.0 %", "5.0 %", "21.0 %", "25.0 %"]
    assert shown["chrF++"] == ["8.0", "19.0", "23.0"]  # the control was not asked to translate
    assert shown["BLEU"] == ["2.0", "4.8", "5.8"]
    assert shown["Perplexity"] == ["768.0", "760.0", "632.0", "600.0"]
    assert shown["Understanding"] == ["34.0 %", "35.0 %", "51.0 %", "55.0 %"]
    assert "chance 2.5 %" in page.words
    assert "chrF++ 9.2, BLEU 0.5 on average" in page.words


def test_averages_compare_the_same_directions(run):
    path = run / "evaluation" / "after.json"
    after = json.loads(path.read_text())
    after["translation"]["en-de"]["chrf++"] = 63.0
    del after["translation"]["en-ar"]  # missing after, so left out before as well
    path.write_text(json.dumps(after))
    before = run / "evaluation" / "before.json"
    scores = json.loads(before.read_text())
    scores["translation"]["en-ar"]["chrf++"] = 99.0
    before.write_text(json.dumps(scores))
    card = re.search(r"<h3>chrF\+\+</h3>.*?</section>", Page(write_report(run)).source, re.S)[0]
    assert re.findall(r"<dd[^>]*>([^<]*)</dd>", card) == ["8.0", "19.0", f"{(63 + 23 + 23) / 3:.1f}"]


def test_tables_hold_every_score(page):
    cells = page.of("td")
    assert cells.count("ar-de") == 1
    row = cells[cells.index("ar-de") :][:6]
    assert row == ["ar-de", "4.0 %", "5.0 %", "21.0 %", "25.0 %", "40"]
    row = cells[cells.index("ar-en", cells.index("ar-en") + 1) :][:8]  # first retrieval, then translation
    assert row == ["ar-en", "2.0", "4.8", "5.8", "8.0", "19.0", "23.0", "1"]  # nothing is known of what is off target
    layer = cells[cells.index("0.040") - 1 :][:5]
    assert layer == ["1", "0.040", "0.050", "0.210", "0.250"]


def test_training_table(page):
    cells = page.of("td")
    row = cells[cells.index("stage 1, align") :][:8]
    assert row == ["stage 1, align", "50", "1.0", "0.8", "1,234", "6.5", "5.000 → 3.000", "6.000 → 4.000"]


def test_figures(page):
    titles = [value for tag, name, value in page.attributes if tag == "svg" and name == "aria-label"]
    assert titles == [
        "Stage 1: whole loss L",
        "Stage 1: next-token prediction L_ntp",
        "Stage 1: contrastive L_ctr",
        "Stage 1: language matching L_lam",
        "Stage 2: next-token prediction L_ntp",
        "Gradient norm before clipping",
        "Retrieval top-1",
        "Cosine: translations and unrelated",
        "Translations minus unrelated",
        "Retrieval top-1",
        "Linear CKA between languages",
        "Before",
        "After",
        "chrF++",
        "BLEU",
    ]
    assert {"ar – de", "ar – en", "de – en"} <= set(page.of("text"))
    assert not re.search("#00..fe", page.source), "a stand-in colour was not replaced"
    assert "DejaVu" not in page.source


def loss_titles(run: Path) -> list[str]:
    """Titles of the loss panels of the page."""
    return re.findall(r'aria-label="(Stage [12]: .*?)"', write_report(run).read_text())


def test_every_logged_loss_is_drawn(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    for line in lines:
        if "event" not in line:
            line |= {"loss_rank": 1.0, "loss_apart": 2.0, "loss_scale_of_it": None}
    start = {"stage": "align", "step": 0, "event": "start", "losses": "chunked"}
    titles = {"apart": "contrastive, encoded apart", "ntp": "next token"}
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [start | {"loss_titles": titles}, *lines]))
    terms = ["whole loss L", "next token", "contrastive L_ctr", "language matching L_lam", "contrastive, encoded apart", "rank"]
    tuned = [term for term in terms if term not in ("contrastive L_ctr", "language matching L_lam")]
    assert loss_titles(run) == [f"Stage 1: {term}" for term in terms] + [f"Stage 2: {term}" for term in tuned]
    assert "the weighted sum of its terms" in Page(run / "report.html").words


def test_losses_keep_their_order_whatever_the_log_begins_with(run):
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    turned = [dict(reversed(line.items())) for line in lines if line["stage"] == "align"]
    before = [title for title in loss_titles(run) if "Stage 1" in title]
    (run / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in turned))
    assert loss_titles(run) == before


def test_data_and_environment(page):
    cells = page.of("td")
    assert cells[cells.index("duplicate") + 1] == "17"
    assert cells[cells.index("rows read") + 1] == "2,000"
    assert cells[cells.index("tokens mean") :][:3] == ["tokens mean", "46.0", "46.0"]
    assert cells[cells.index("versions.flash-attn") + 1] == "—"
    assert "first <run>" in page.of("pre")[0]


def test_prepared_folders_are_shown_by_their_cards(run):
    assert "prepared folders" not in " ".join(Page(write_report(run)).of("h3")).lower()
    card = {
        "rows": {"read": 1234, "kept": 1000, "instructions": 0, "meanings": 777},
        "leak": {"check": "passed", "test_sentences": 55},
        "dropped": {"too long": 34, "<b>numbers</b>": 200},
        "fingerprint": "0123abcd",
    }
    (run / "data" / "prepared.json").write_text(json.dumps({"data/<mine>": card, "data/odd": None, "data/half": {"rows": None}}))
    page = Page(write_report(run))
    cells = page.of("td")
    assert cells[cells.index("data/<mine>") :][:8] == ["data/<mine>", "1,234", "1,000", "0", "777", "passed", "55", "0123abcd"]
    assert cells[cells.index("<b>numbers</b>") + 1] == "200"
    assert "data/odd" not in page.words


def test_texts_are_escaped_and_keep_their_direction(page):
    assert page.of("title") == ["first <run>: report"]
    assert "How is <b>the weather</b> & the sea?" in page.of("dd")
    assert "<b>" not in page.source
    assert "كيف حال الطقس؟" in page.of("dd")
    samples = [value for tag, name, value in page.attributes if tag == "dd" and name == "dir"]
    assert samples
    assert set(samples) == {"auto"}
    assert "(nothing)" in page.words
    assert ("dd", "class", "same") in page.attributes


def test_hostile_language_codes_are_escaped(run):
    path = run / "evaluation" / "after.json"
    scores = path.read_text().replace('"en-de"', '"<script>alert(1)</script>"')
    path.write_text(scores)
    assert "<script" not in Page(write_report(run)).source


def test_texts_do_not_control_or_reorder_the_page(run):
    file = run / "evaluation" / "after.json"
    scores = json.loads(file.read_text())
    for direction in scores["translation"].values():
        for example in direction["examples"]:
            example["hypothesis"] = "\x1b[31mred \u202edaer"
    file.write_text(json.dumps(scores))
    page = write_report(run).read_text(encoding="utf-8")
    assert r"\x1b[31mred \u202edaer" in page
    assert not OBEYED.search(page)


def test_notes(run):
    items = Page(write_report(run)).of("li")
    assert any("one seed" in item for item in items)
    assert any("cannot translate usefully" in item for item in items)
    assert any("control trained for the same number" in item for item in items)
    assert "BLEU into xx counts characters." in items
    settings = yaml.safe_load((run / "settings.yaml").read_text()) | {"model": {"path": "some/model"}}
    (run / "settings.yaml").write_text(yaml.safe_dump(settings))
    assert "cannot translate usefully" not in Page(write_report(run)).words


def test_skipped_steps_are_noted(run):
    with (run / "log.jsonl").open("a") as file:
        for step in (12, 30):
            file.write(json.dumps({"stage": "align", "step": step, "time": 1, "event": "skipped", "skipped_steps": 1}) + "\n")
    assert any("skipped steps 12, 30: loss or gradients were not finite" in item for item in Page(write_report(run)).of("li"))


def test_the_same_folder_gives_the_same_page(run):
    first = write_report(run).read_bytes()
    assert write_report(run).read_bytes() == first


@pytest.mark.parametrize(
    ("remove", "said"),
    [
        (["evaluation"], "There are no scores"),
        (["evaluation/after.json"], "evaluation/after.json is missing"),
        (["log.jsonl"], "no training steps"),
        (["data"], "No data summary"),
        (["environment.json"], "environment was not recorded"),
        (["model"], "interrupted or has not ended"),
        (["settings.yaml"], "settings.yaml"),
        (["evaluation", "log.jsonl", "data", "environment.json", "model"], "no training steps"),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else "",
)
def test_missing_parts_are_named(run, remove, said):
    for part in remove:
        path = run / part
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    page = Page(write_report(run))
    assert said in page.words
    assert "This page is not complete." in page.words


def test_a_complete_run_is_not_called_incomplete(page):
    assert "not complete" not in page.words


def test_an_interrupted_run(run):
    lines = (run / "log.jsonl").read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["stage"] != "instruct"]
    (run / "log.jsonl").write_text("\n".join(kept) + '\n{"stage": "instruct", "st')
    (run / "evaluation" / "after.json").write_text('{"when": "af')
    shutil.rmtree(run / "model")
    page = Page(write_report(run))
    assert "no training steps of stage 2" in page.words
    assert "after.json is missing or unreadable" in page.words
    assert "21.0 %" in page.words


PARTS = ["translation", "retrieval", "layers", "map", "perplexity", "understanding", "notes"]


@pytest.mark.parametrize("part", PARTS)
def test_scores_of_an_older_version_lack_a_part(run, part):
    for path in (run / "evaluation").iterdir():
        scores = json.loads(path.read_text())
        del scores[part]
        path.write_text(json.dumps(scores))
    assert "not complete" not in Page(write_report(run)).words


def test_parts_that_are_null_are_missing_parts(run):
    for path in (run / "evaluation").iterdir():
        edit(path, **dict.fromkeys(PARTS))
    page = Page(write_report(run))
    assert "There are no scores" in page.words
    assert "not complete" not in page.words


def test_scores_of_another_form_are_named(run):
    edit(run / "evaluation" / "before.json", translation={"en-de": {"bleu": 1.0}})
    assert "evaluation/before.json is missing or unreadable" in Page(write_report(run)).words


def test_no_heavy_library_is_loaded(run):
    code = (
        "import sys; from pathlib import Path; from alignx_fast.report.write import write_report; "
        f"write_report(Path({str(run)!r})); print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output.strip() == "[]"


def test_one_stage_without_evaluation(run):
    settings = {"name": "one", "stages": ["align"], "evaluation": {"enabled": False}}
    (run / "settings.yaml").write_text(yaml.safe_dump(settings))
    (run / "log.jsonl").write_text(
        "".join(json.dumps(json.loads(x)) + "\n" for x in (run / "log.jsonl").read_text().splitlines()[10:20])
    )
    shutil.rmtree(run / "evaluation")
    (run / "data" / "instruct.json").unlink()
    page = Page(write_report(run))
    assert "Evaluation was switched off" in page.words
    assert "stage 2" not in page.words


def test_scores_without_translation_or_pairs(run):
    for path in (run / "evaluation").iterdir():
        empty = {
            "retrieval": {"chance": None, "average": None, "pairs": {}},
            "translation": {},
            "map": {"layer": 1, "points": []},
        }
        layers = {name: [None] * 3 for name in ("similarity", "unrelated", "cka", "retrieval")}
        edit(path, **empty, layers=layers, perplexity={"en": {"perplexity": None, "bits_per_character": None, "tokens": 9}})
    page = Page(write_report(run))
    for words in ("No retrieval scores", "No layer scores", "No map", "No translation scores"):
        assert words in page.words


def test_many_languages(run):
    codes = [f"a{chr(97 + i)}" for i in range(26)]
    for path in (run / "evaluation").iterdir():
        scores = json.loads(path.read_text())
        pairs = {f"{a}-{b}": {"top1": 0.5, "n": 40} for a in codes for b in codes if a != b}
        points = [{"x": i, "y": i % 5, "lang": code, "id": "0"} for i, code in enumerate(codes)]
        scores["map"]["points"] = points
        edit(path, languages=codes, retrieval=scores["retrieval"] | {"pairs": pairs}, map=scores["map"])
    page = Page(write_report(run))
    assert "aa to all" in page.of("text")
    assert page.of("td").count("aa-ab") == 1


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"no run folder"):
        write_report(tmp_path / "absent")
    with pytest.raises(UserError, match=r"not a run folder"):
        write_report(tmp_path)
    assert not list(tmp_path.iterdir())
