"""`alignx-fast evaluate`: all scores of trained or untrained models, side by side where there are several."""

import gc
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from alignx_fast.comparison.compare import Contestant, compare
from alignx_fast.comparison.write import as_markdown, write_tables
from alignx_fast.config import SHORT, EvaluationSettings, load_settings
from alignx_fast.data.corpora import read_meanings
from alignx_fast.data.dedupe import normalise
from alignx_fast.data.gather import held_out_instructions, sentences_trained_on
from alignx_fast.data.prepare import prepare
from alignx_fast.data.rows import DroppedRows, Instruction, Meaning
from alignx_fast.errors import UserError
from alignx_fast.evaluation.evaluate import evaluate
from alignx_fast.evaluation.progress import shown
from alignx_fast.evaluation.results import EvaluatedAt, Evaluation
from alignx_fast.evaluation.sample import require_languages
from alignx_fast.evaluation.spbleu import find_spbleu
from alignx_fast.files import read_object, write_json
from alignx_fast.models.config import load_config
from alignx_fast.printing import printable
from alignx_fast.report.scores import score_table
from alignx_fast.training.inputs import model_fingerprint
from alignx_fast.verbs.trained import find_model, open_trained


@dataclass(frozen=True)
class HeldOut:
    """What all models are scored on."""

    meanings: Sequence[Meaning]
    languages: list[str] | None
    instructions: Sequence[Instruction] = ()


def score(
    models: Sequence[str], overrides: dict[str, object], *, against: str | None, output: Path | None, allow_overlap: bool
) -> None:
    """Evaluate the models and print their headline scores; several are compared.

    Args:
        overrides: settings, such as {"evaluation.sentences": 200}.
        against: the model that the others are compared with; it may be one of `models`.
        output: a JSON file for one model; a folder for several, or for one that ends in no .json.
        allow_overlap: score also on sentences that a run was trained on.

    Raises:
        UserError: a model that cannot be read, no held-out sentences, or sentences that a run was trained on.
    """
    paths = list(dict.fromkeys([*models, *([against] if against else [])]))
    names = dict(zip(paths, short_names(paths), strict=True))
    if output is not None and len(paths) > 1 and output.suffix == ".json":
        raise UserError(f"{output} would hold one of {len(paths)} models: give a folder to --output.")
    own_sentences = overrides.get("data.evaluation")
    dropped = DroppedRows()
    held_out = None if own_sentences is None else HeldOut(read_meanings(str(own_sentences), dropped), None)
    if held_out is None and find_model(paths[0])[1] is None:
        raise UserError(
            f"{paths[0]} is not a run folder, so it has no held-out sentences: give some with --data.evaluation FILE."
        )
    for path in paths[1:]:
        _check_exists(path, overrides)  # at once, and not when the models before it have been scored
    settings = load_settings(find_model(paths[0])[1], overrides).evaluation  # a run brings its own, which the other models share
    console = Console(highlight=False, markup=False, emoji=False)
    if dropped.counts:
        counts = ", ".join(f"{count:,} {reason}" for reason, count in dropped.by_reason().items())
        console.print(f"Texts of {printable(str(own_sentences))} that are not used: {counts}.")
    evaluations: dict[str, Evaluation] = {}
    for path, name in names.items():
        console.print(f"{name}:")
        file = _file(output, name)
        evaluations[name], held_out = _evaluate(path, overrides, settings, held_out, file, allow_overlap=allow_overlap)
        if file is not None:
            write_json(file, evaluations[name].to_json())
            parts_file(file).unlink(missing_ok=True)
        gc.collect()  # the next model needs the memory of this one
    console.print(score_table(evaluations))
    for note in dict.fromkeys(note for scores in evaluations.values() for note in scores.notes):
        console.print(note)
    if len(names) > 1:
        comparison = compare(
            [Contestant(name, (scores,)) for name, scores in evaluations.items()],
            None if against is None else names[against],
            spbleu=find_spbleu(settings),
        )
        if output is not None:
            write_tables(comparison, output)
        elif against is not None:
            console.print(as_markdown(comparison), soft_wrap=True)
    if output is not None:
        console.print(f"All scores: {output}")


def _check_exists(path: str, overrides: dict[str, object]) -> None:
    model, file = find_model(path)
    if not (Path(model) / "adapter_config.json").is_file():
        load_config(model, load_settings(file, overrides).model)


def short_names(paths: Sequence[str]) -> list[str]:
    """The last part of each path, with as many parts before it as tell all of them apart."""
    parts = [Path(path).expanduser().parts for path in paths]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(each[-length:]) for each in parts]
        if len(set(names)) == len(names):
            return names
    return list(paths)


def parts_file(file: Path) -> Path:
    """Where the parts of an evaluation are kept until it is done."""
    return file.with_suffix(".parts.json")


def _file(output: Path | None, name: str) -> Path | None:
    if output is None or output.suffix == ".json":
        return output
    return output / f"{name.replace('/', '-')}.json"


def _evaluate(
    path: str,
    overrides: dict[str, object],
    settings: EvaluationSettings,
    held_out: HeldOut | None,
    file: Path | None,
    *,
    allow_overlap: bool,
) -> tuple[Evaluation, HeldOut]:
    """The scores of one model, and what the next ones are scored on."""
    trained = open_trained(path, overrides)
    if held_out is None:
        prepared = prepare(trained.settings, trained.tokenizer, trained.settings.stages[0])
        instructions = held_out_instructions(trained.settings) if settings.continuations else []
        held_out = HeldOut(prepared.eval_meanings, prepared.languages, instructions)
    elif not allow_overlap:
        refuse_overlap(path, held_out.meanings)
    asked = settings.languages if "evaluation.languages" in overrides else None
    if asked is not None:
        require_languages(held_out.meanings, asked)
    scores = evaluate(
        trained.model,
        trained.tokenizer,
        held_out.meanings,
        settings,
        evaluated_at=EvaluatedAt.NOW,
        languages=asked or held_out.languages,
        align_layer=trained.align_layer,
        template=trained.template,
        instructions=held_out.instructions,
        show=shown,
        parts_file=None if file is None else parts_file(file),
        model_fingerprint=_fingerprint(path),
    )
    return scores.model_copy(update={"model": path}), held_out


def _fingerprint(path: str) -> str:
    """Of a model folder and, for adapters, of what they stand on; a name on the hub stands for itself."""
    folder = Path(find_model(path)[0]).expanduser()
    if not folder.is_dir():
        return path
    base = (read_object(folder / "adapter_config.json") or {}).get("base_model_name_or_path")
    return f"{model_fingerprint(folder)} {base}"


def refuse_overlap(path: str, meanings: Sequence[Meaning]) -> None:
    """Refuse test sentences that a run was trained on. What a plain model was trained on is not known.

    Raises:
        UserError: there are such sentences.
    """
    file = find_model(path)[1]
    if file is None:
        return
    trained_on = {normalise(text) for text in sentences_trained_on(load_settings(file))}
    seen = [text for meaning in meanings for text in meaning.texts.values() if normalise(text) in trained_on]
    if seen:
        raise UserError(
            f"{path} was trained on {len(seen)} of the held-out sentences, such as {SHORT.repr(seen[0])}: scores on them say nothing. Take "
            "other sentences, or add --allow-overlap."
        )
