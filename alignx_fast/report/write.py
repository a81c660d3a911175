"""Run folder -> report.html: one page without scripts that refers to nothing outside itself."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from alignx_fast.files import write_text
from alignx_fast.report import figures, numbers
from alignx_fast.report.read import MOMENTS, STAGES, Run, read_run

GLYPHS = dict(zip(figures.MARKERS, "●▲■◆▼✚✖★", strict=True))
"""The markers of the map as characters, for its legend."""


def write_report(run_folder: Path) -> Path:
    """Write `run_folder`/report.html from what the folder holds, and return its path. What is missing is named on the page.

    Raises:
        UserError: the folder does not exist or holds nothing of a run.
    """
    run = read_run(Path(run_folder))
    environment = Environment(
        loader=PackageLoader("alignx_fast", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("page.html.j2").render(**content(run))
    path = run.folder / "report.html"
    write_text(path, page)
    return path


def content(run: Run) -> dict[str, Any]:
    """Everything that the template shows."""
    languages = sorted({language for scores in run.evaluation.values() for language in scores.get("languages") or []})
    ranked = {when: (scores.get("retrieval") or {}).get("pairs") or {} for when, scores in run.evaluation.items()}
    translations = {when: scores.get("translation") or {} for when, scores in run.evaluation.items()}
    chance = numbers.first(run, lambda scores: (scores.get("retrieval") or {}).get("chance"))

    def translated(score: str) -> dict[str, dict[str, float]]:
        return {when: figures.few({key: pair[score] for key, pair in pairs.items()}) for when, pairs in translations.items()}

    return {
        "run": run,
        "languages": languages,
        "moments": MOMENTS,
        "chance": None if chance is None else numbers.percent(chance),
        "align_layer": numbers.first(run, lambda scores: scores.get("align_layer")),
        "sentences": numbers.first(run, lambda scores: scores.get("sentences")),
        "cards": numbers.headline(run),
        "training": numbers.training(run),
        "losses": svg(figures.loss_curves(run)),
        "retrieval": svg(
            figures.bars(
                "retrieval",
                "Retrieval top-1",
                "%",
                {
                    when: figures.both_ways({key: 100 * pair["top1"] for key, pair in pairs.items()})
                    for when, pairs in ranked.items()
                },
                None if chance is None else 100 * chance,
            )
        ),
        "translation": svg(
            [
                *figures.bars("chrf", "chrF++", "chrF++", translated("chrf++")),
                *figures.bars("bleu", "BLEU", "BLEU", translated("bleu")),
            ]
        ),
        "by_chance": numbers.by_chance(run),
        "layers": svg(figures.layer_curves(run)),
        "maps": svg(figures.maps(run, languages)),
        "stages": [(colour, label) for stage, (colour, label) in figures.LOG.items() if run.steps(stage)],
        "legend": [
            (code, colour, GLYPHS[marker]) for i, code in enumerate(languages) for colour, marker in [figures.language_mark(i)]
        ],
        "tables": {
            "Retrieval top-1, by direction of the search": numbers.table(run, "retrieval", {"top1": ("top-1", numbers.percent)}),
            "Translation, by direction": numbers.table(
                run,
                "translation",
                {
                    "bleu": ("BLEU", numbers.decimal),
                    "chrf++": ("chrF++", numbers.decimal),
                    "off_target": ("off target", numbers.percent),
                },
            ),
            "Perplexity, by language": numbers.table(
                run,
                "perplexity",
                {
                    "perplexity": ("perplexity per token", numbers.decimal),
                    "bits_per_character": ("bits per character", numbers.cosine),
                },
            ),
            "Understanding, by task": numbers.table(
                run, "understanding", {"score": ("score", numbers.percent), "stderr": ("standard error", numbers.percent)}
            ),
            "Layers": numbers.layer_table(run),
        },
        "signatures": sorted(
            {pair["signature"] for pairs in translations.values() for pair in pairs.values() if pair.get("signature")}
        ),
        "samples": numbers.samples(run),
        "sample_count": numbers.SAMPLES,
        "data": [(STAGES.get(stage, stage), *split(summary)) for stage, summary in run.data.items()],
        "environment": flat(run.environment),
        "notes": notes(run),
    }


def svg(panels: list[str]) -> list[Markup]:
    """Panels that are drawn here hold no text of the user's beyond language codes, which matplotlib escapes."""
    return [Markup(panel) for panel in panels]


def split(summary: dict[str, Any]) -> tuple[list[tuple[str, str]], list[tuple[str, list[str], list[list[str]]]]]:
    """A data summary as single facts and as tables (title, headings, rows), whatever it counts."""
    sides = {side: counts for side in ("train", "dev") if isinstance(counts := summary.get(side), dict)}
    facts, tables = [], [across("counts", sides, by="column")] if sides else []
    for key, value in summary.items():
        if not isinstance(value, dict) and key != "stage":
            facts.append((spaced(key), plain(value)))
        elif isinstance(value, dict) and key not in sides:
            nested = any(isinstance(inner, dict) for inner in value.values())
            tables.append(across(spaced(key), value if nested else {"rows": value}, by="row" if nested else "column"))
    return facts, tables


def across(title: str, groups: dict[str, dict[str, Any]], *, by: str) -> tuple[str, list[str], list[list[str]]]:
    """Counts by group and name as (title, headings, rows): a group is a row or a column."""
    names = list(dict.fromkeys(name for counts in groups.values() for name in counts))
    if by == "row":
        rows = [[group, *(plain(counts.get(name)) for name in names)] for group, counts in groups.items()]
        return title, [spaced(name) for name in names], rows
    return title, list(groups), [[spaced(name), *(plain(counts.get(name)) for counts in groups.values())] for name in names]


def spaced(name: str) -> str:
    return name.replace("_", " ")


def plain(value: Any) -> str:
    """A number with separated thousands, a list in a row, anything else as it is."""
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return "—" if value is None else str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"


def flat(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested dicts as (dotted name, value)."""
    items: list[tuple[str, str]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            items += flat(value, f"{prefix}{key}.")
        else:
            items.append((prefix + key, plain(value)))
    return items


def notes(run: Run) -> list[str]:
    """What a reader must know before believing the numbers."""
    said = ["One run with one seed: small differences may be chance. Repeat with other seeds before drawing conclusions."]
    model = (run.settings.get("model") or {}).get("path")
    if model == "builtin:tiny":
        said.append(
            "builtin:tiny is a model of a few million parameters, trained from scratch on little text. It shows that the method "
            "and the code work. It cannot translate usefully, knows nothing of the world, and says nothing about a large model."
        )
    if "ntp_only" in run.evaluation:
        said.append(
            f"{MOMENTS['ntp_only']!r} is a control trained for the same number of stage 1 steps without the two alignment losses."
        )
    said += list(dict.fromkeys(note for scores in run.evaluation.values() for note in scores.get("notes") or []))
    return said
