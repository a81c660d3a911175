"""`alignx-fast study`: from a study file to trained and scored models, their comparison and a page."""

import json
import logging
from dataclasses import asdict
from pathlib import Path

import yaml

from alignx_fast.data.rows import Meaning
from alignx_fast.files import write_text
from alignx_fast.lock import only_writer
from alignx_fast.study.base import base_model, keep_base, starting_from
from alignx_fast.study.check import check_unchanged, check_variants, held_out_sentences, scored_in_languages
from alignx_fast.study.layout import Layout
from alignx_fast.study.page import write_results
from alignx_fast.study.processes import Failure, Runner
from alignx_fast.study.spec import Study
from alignx_fast.study.tasks import tasks_of
from alignx_fast.training.inputs import RunInputs

log = logging.getLogger(__name__)


def run_study(study: Study, jobs: int) -> list[Failure]:
    """Train and score what is not done yet, then compare; returns the tasks that failed.

    A second call goes on where the first one was stopped or killed.

    Args:
        jobs: tasks done at the same time; they share the threads of this process.

    Raises:
        UserError: a variant cannot run, or the study folder holds another study; nothing has been written then.
        KeyboardInterrupt: it was stopped, and every process has saved what it had.
    """
    with only_writer(study.output):
        study = _made_ready(study)
        tasks = tasks_of(study)
        log.info("%s: %d variants, seeds %s", study.name, len(study.variants), ", ".join(map(str, study.seeds)))
        failures = Runner(tasks, jobs).run()
        page = write_results(study)
    if page is not None:
        log.info("Tables: %s\nPage:   %s", study.output / "comparison.md", page)
    for failure in failures:
        log.error("Failed: %s, see %s (%s)", failure.task.title, failure.task.log_file, failure.reason)
    return failures


def _made_ready(study: Study) -> Study:
    """The study as it runs here; checks all of it, then writes what its runs have in common."""
    layout, meanings = Layout(study.output), held_out_sentences(study)
    study = scored_in_languages(study, meanings)
    inputs = RunInputs(study.output)
    with base_model(study) as model:
        parts = check_variants(study if model is None else starting_from(study, model))
        check_unchanged(study, inputs, parts)
        if model is not None:
            keep_base(model, layout.base)
            study = starting_from(study, layout.base.resolve())
    if study.shared.data.evaluation is None:
        _write_sentences(meanings, layout.sentences)
    write_text(layout.study_file, yaml.safe_dump(study.as_tree(), sort_keys=False, allow_unicode=True))
    inputs.record({"evaluation": study.evaluation.model_dump(mode="json")}, parts, [])
    return study


def _write_sentences(meanings: list[Meaning], file: Path) -> None:
    write_text(file, "".join(json.dumps(asdict(meaning), ensure_ascii=False) + "\n" for meaning in meanings))
