"""Everything that can be known to fail is refused before the first run of a study starts, and before anything is written."""

import json
import logging
from dataclasses import replace
from pathlib import Path

from transformers import PreTrainedTokenizerFast

from alignx_fast.config import Settings
from alignx_fast.data.corpora import read_meanings
from alignx_fast.data.languages import check_language
from alignx_fast.data.phrasebook import PHRASEBOOK, load_phrasebook
from alignx_fast.data.prepare import Prepared, prepare
from alignx_fast.data.rows import Meaning, Reason
from alignx_fast.errors import UserError
from alignx_fast.evaluation.sample import require_languages
from alignx_fast.evaluation.translation import check_translation
from alignx_fast.models.tokenizer import load_tokenizer
from alignx_fast.study.base import base_of
from alignx_fast.study.layout import Layout, run_settings
from alignx_fast.study.spec import Study, Variant
from alignx_fast.training.folder import changed_settings
from alignx_fast.training.inputs import Fingerprints, RunInputs, data_fingerprints, model_fingerprint
from alignx_fast.training.run import check_runnable

log = logging.getLogger(__name__)


def held_out_sentences(study: Study) -> list[Meaning]:
    """The sentences that every model is scored on.

    Raises:
        UserError: there is no file of them and the data is not the phrasebook alone, which brings its own; or it cannot be read.
    """
    data = study.shared.data
    if data.evaluation is not None:
        return read_meanings(data.evaluation)
    sources = [source for variant in study.variants for source in variant.settings.data.parallel]
    if any(source.path != PHRASEBOOK for source in sources):
        raise UserError(
            "A study scores all of its models on the same held-out sentences: name a file of them with `data.evaluation` under "
            "`settings`."
        )
    return load_phrasebook().held_out


def scored_in_languages(study: Study, meanings: list[Meaning]) -> Study:
    """The study with its evaluation languages written out: as set, else those of the shared data that have sentences, else all.

    Raises:
        UserError: a language that is asked for has no sentence; the nearest is named.
    """
    evaluation, asked = study.evaluation, study.evaluation.languages
    if asked is None:
        known = sorted({code for meaning in meanings for code in meaning.texts})
        trained = set(map(check_language, study.shared.data.languages or known))
        asked = [code for code in known if code in trained] or known
    require_languages(meanings, asked)
    languages = list(dict.fromkeys(map(check_language, asked)))
    shared = study.shared.model_copy(
        update={"evaluation": evaluation.model_copy(update={"languages": languages, "enabled": True})}
    )
    return replace(study, shared=shared)


def check_variants(study: Study) -> Fingerprints:
    """Refuse a study with a variant that cannot be trained or scored as asked.

    Returns:
        fingerprints of the data, with the first seed, and of the base model of every variant.

    Raises:
        UserError: names the variant and what is wrong with it, or a file that the scores need.
    """
    if study.evaluation.translation_sentences:
        check_translation(study.evaluation)
    data = _Data()
    parts: Fingerprints = {}
    for variant in study.variants:
        try:
            check_runnable(variant.settings.model_copy(update={"evaluation": study.evaluation}))
            if variant.trained:
                parts |= data.check(study, variant)
            for seed in study.seeds if variant.trained else ():
                _check_folder(run_settings(study, variant, seed))
        except UserError as error:
            raise UserError(f"Variant {variant.name}: {error}") from None
        if (model := Path(variant.settings.model.path)).is_dir():
            parts[base_of(variant)] = model_fingerprint(model)
    return parts


class _Data:
    """Reads and tokenises the data of all variants, each set of rows once; the runs take it from the cache."""

    def __init__(self) -> None:
        self.tokenizers: dict[str, PreTrainedTokenizerFast] = {}
        self.fingerprints: dict[str, Fingerprints] = {}

    def check(self, study: Study, variant: Variant) -> Fingerprints:
        """Fingerprints of a variant's data.

        Raises:
            UserError: it cannot be read, is empty, or holds sentences of the evaluation.
        """
        settings = run_settings(study, variant, study.seeds[0])
        key = json.dumps([settings.stages, settings.model.path, settings.data.model_dump(mode="json")])
        if key not in self.fingerprints:
            log.info("Checking the data of variant %s ...", variant.name)
            prepared: dict[str, Prepared] = {
                stage: prepare(settings, self._tokenizer(settings), stage) for stage in settings.stages
            }
            if not study.drop_test_sentences:
                _check_no_test_sentences(settings, prepared)
            self.fingerprints[key] = data_fingerprints(prepared)
        return {f"{part} of variant {variant.name}": value for part, value in self.fingerprints[key].items()}

    def _tokenizer(self, settings: Settings) -> PreTrainedTokenizerFast:
        path = settings.model.path
        if path not in self.tokenizers:
            self.tokenizers[path] = load_tokenizer(path, settings.model)
        return self.tokenizers[path]


def _check_no_test_sentences(settings: Settings, prepared: dict[str, Prepared]) -> None:
    if settings.data.evaluation is None:
        return
    for stage, data in prepared.items():
        if rows := data.summary["dropped"].get(Reason.EVALUATION):
            raise UserError(
                f"{rows:,} rows of the data of stage {stage} hold sentences of {settings.data.evaluation}, on which the models are to be "
                "scored: give other files, or set `drop_test_sentences: true` in the study, which trains without these rows."
            )


def _check_folder(settings: Settings) -> None:
    if changed := changed_settings(settings):
        raise UserError(
            f"{settings.output} was trained with another value of {changed[0]}: give the study that value again, remove that folder, or "
            "choose another study folder with --output."
        )


def check_unchanged(study: Study, inputs: RunInputs, parts: Fingerprints) -> None:
    """Refuse to go on with other data, another base model or another evaluation than the study was started with.

    Raises:
        UserError: names what differs.
    """
    if changed := inputs.changed(parts):
        raise UserError(
            f"{changed[0][0].upper()}{changed[0][1:]} is not what {study.output} was started with: restore what was there, or choose "
            "another study folder with --output."
        )
    folder = Layout(study.output).evaluations
    before = (inputs.settings or {}).get("evaluation")
    scored = any(not file.name.endswith(".parts.json") for file in folder.rglob("*.json"))
    if not isinstance(before, dict) or not scored:
        return
    now = study.evaluation.model_dump(mode="json")
    if other := [key for key, value in now.items() if before.get(key, value) != value]:
        raise UserError(
            f"{folder} was scored with another value of evaluation.{other[0]}: give the same, or remove that folder to score all models "
            "again."
        )
