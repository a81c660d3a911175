"""Stage 1 that several runs have in common is trained once: the others begin with a copy of it."""

import json
import logging
import shutil
from pathlib import Path

from alignx_fast.config import Settings
from alignx_fast.files import link_or_copy, publish, write_text
from alignx_fast.stages import StageName
from alignx_fast.training.callbacks import read_lines
from alignx_fast.training.folder import holds_results, write_settings
from alignx_fast.training.inputs import RunInputs, model_fingerprint
from alignx_fast.training.run import model_of

log = logging.getLogger(__name__)

STAGE = StageName.ALIGN
NOT_OF_STAGE_1 = {"name": True, "output": True, "stages": True, "instruct": True, "tracking": True} | {
    "data": {"instructions", "translation_share", "cache_dir"}
}
"""Settings that leave stage 1 as it is."""


def stage_1_key(settings: Settings) -> str | None:
    """Equal for runs whose stage 1 is the same; None of a run that has none, or a control beside it."""
    if STAGE not in settings.stages or settings.align.compare_ntp_only:
        return None
    return json.dumps(settings.model_dump(mode="json", exclude=NOT_OF_STAGE_1))


def has_stage_1(run: Path) -> bool:
    """Whether a run has finished its stage 1."""
    return (run / STAGE / "model").is_dir()


def begin_with_stage_1(donor: Path, settings: Settings) -> None:
    """Make the run folder of `settings` as if it had been stopped at the end of the stage 1 that `donor` holds.

    Resuming then compares base model, stage 1 and its data with the fingerprints that come along.
    """
    folder = settings.output
    if holds_results(folder) or not has_stage_1(donor):
        return
    inputs = RunInputs(donor)
    if inputs.changed({model_of(STAGE): model_fingerprint(donor / STAGE / "model")}):
        log.warning("%s is not what that run left there: %s trains stage 1 anew.", donor / STAGE / "model", folder)
        return
    partial = folder.with_name(f"{folder.name}.partial")
    for leftover in (partial, folder):  # of a start that a kill has cut off
        shutil.rmtree(leftover, ignore_errors=True)
    shutil.copytree(donor / STAGE / "model", partial / STAGE / "model", copy_function=link_or_copy)
    shutil.copy2(donor / STAGE / "stage.json", partial / STAGE / "stage.json")
    lines = [line for line in read_lines(donor / "log.jsonl") if line["stage"] == STAGE]
    write_text(partial / "log.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    write_settings(settings, partial)
    kept = {part: value for part, value in inputs.fingerprints.items() if not part.endswith(f"stage {StageName.INSTRUCT}")}
    RunInputs(partial).record(settings.model_dump(mode="json"), kept, [])
    publish(partial, folder)
