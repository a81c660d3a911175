"""Run folder -> report.html: one page without scripts that refers to nothing outside itself."""

from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from alignx_fast.files import write_text
from alignx_fast.printing import printable
from alignx_fast.report.facts import data_facts, flat, prepared_facts
from alignx_fast.report.figures.bars import retrieval_bars, translation_bars
from alignx_fast.report.figures.layers import layer_curves
from alignx_fast.report.figures.losses import loss_curves
from alignx_fast.report.figures.maps import map_legend, sentence_maps
from alignx_fast.report.formats import percent
from alignx_fast.report.headline import first, headline, translation_by_chance
from alignx_fast.report.labels import POINT_TITLES, STAGE_LABELS, stage_title
from alignx_fast.report.notes import notes
from alignx_fast.report.read import Run, read_run
from alignx_fast.report.samples import PER_DIRECTION, samples
from alignx_fast.report.tables import score_tables
from alignx_fast.report.training import training_rows
from alignx_fast.stages import StageName


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
        finalize=shown,
    )
    page = environment.get_template("page.html.j2").render(
        run=run, titles=POINT_TITLES, **training(run), **scores(run), **facts(run)
    )
    path = run.folder / "report.html"
    write_text(path, page)
    return path


def shown(value: object) -> object:
    """Texts without characters that a page cannot hold or that reorder what stands beside them; all else as it is."""
    return printable(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def training(run: Run) -> dict[str, object]:
    """What the page says of the training."""
    return {
        "training": training_rows(run.log),
        "losses": markup(loss_curves(run.log)),
        "loss_terms": len(run.log.loss_terms([StageName.ALIGN])),
        "stages": [(label.colour, label.short) for stage, label in STAGE_LABELS.items() if run.log.steps(stage)],
    }


def scores(run: Run) -> dict[str, object]:
    """What the page says of the evaluations."""
    evaluations = run.evaluations
    languages = sorted({language for evaluation in evaluations.values() for language in evaluation.languages})
    directions = [direction for evaluation in evaluations.values() for direction in evaluation.translation.values()]
    chance = first(evaluations, lambda evaluation: evaluation.retrieval.chance)
    return {
        "languages": languages,
        "chance": None if chance is None else percent(chance),
        "align_layer": first(evaluations, lambda evaluation: evaluation.align_layer),
        "sentences": first(evaluations, lambda evaluation: evaluation.sentences),
        "cards": headline(evaluations),
        "retrieval": markup(retrieval_bars(evaluations, chance)),
        "layers": markup(layer_curves(evaluations)),
        "maps": markup(sentence_maps(evaluations, languages)),
        "legend": map_legend(languages),
        "translation": markup(translation_bars(evaluations)),
        "by_chance": translation_by_chance(evaluations),
        "signatures": sorted({direction.signature for direction in directions if direction.signature}),
        "samples": samples(evaluations),
        "samples_per_direction": PER_DIRECTION,
        "tables": score_tables(evaluations),
    }


def facts(run: Run) -> dict[str, object]:
    """What the page says of the data and of the circumstances."""
    return {
        "notes": notes(run),
        "data": [(stage_title(stage), *data_facts(summary)) for stage, summary in run.data.items()]
        + ([("prepared folders", *prepared_facts(run.prepared))] if run.prepared else []),
        "environment": flat(run.environment),
    }


def markup(panels: list[str]) -> list[Markup]:
    """Panels that are drawn here hold no text of the user's beyond language codes, which matplotlib escapes."""
    return [Markup(panel) for panel in panels]
