"""`alignx-fast evaluate`: all scores of a trained or untrained model."""

from pathlib import Path

from rich.console import Console

from alignx_fast.data.corpora import read_meanings
from alignx_fast.data.prepare import prepare
from alignx_fast.errors import UserError
from alignx_fast.evaluation.evaluate import evaluate
from alignx_fast.evaluation.results import EvaluatedAt
from alignx_fast.files import write_json
from alignx_fast.report.scores import score_table
from alignx_fast.verbs.trained import find_model, open_trained


def score(path: str, overrides: dict[str, object], output: Path | None) -> None:
    """Evaluate the model that `path` names and print its headline scores."""
    if find_model(path)[1] is None and not overrides.get("data.evaluation"):
        raise UserError(f"{path} is not a run folder, so it has no held-out sentences: give some with --data.evaluation FILE.")
    trained = open_trained(path, overrides)
    languages = trained.settings.evaluation.languages
    if own_sentences := overrides.get("data.evaluation"):
        meanings = read_meanings(str(own_sentences))
    else:
        prepared = prepare(trained.settings, trained.tokenizer, trained.settings.stages[0])
        languages, meanings = languages or prepared.languages, prepared.eval_meanings
    console = Console(highlight=False, markup=False, emoji=False)
    scores = evaluate(
        trained.model,
        trained.tokenizer,
        meanings,
        trained.settings.evaluation,
        evaluated_at=EvaluatedAt.NOW,
        languages=languages,
        align_layer=trained.align_layer,
        template=trained.template,
        progress=lambda words: console.print(f"  {words} ..."),
    )
    console.print(score_table({scores.evaluated_at: scores}))
    for note in scores.notes:
        console.print(note)
    if output is not None:
        write_json(output, scores.to_json())
        console.print(f"All scores: {output}")
