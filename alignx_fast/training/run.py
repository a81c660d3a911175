"""`alignx-fast train`: from settings to a trained, evaluated model in a run folder.

A run is a list of parts (base model, evaluations, stages), each with a file that appears last and marks it as done. Resuming runs the
same list and skips what is there; a stage that was cut off continues from its last checkpoint.
"""

import gc
import importlib.util
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
import yaml
from rich.console import Console
from transformers import PreTrainedTokenizerFast, set_seed

from alignx_fast.config import Settings, Stage
from alignx_fast.data.gather import training_texts
from alignx_fast.data.prepare import Prepared, prepare
from alignx_fast.data.templates import choose
from alignx_fast.environment import record
from alignx_fast.errors import UserError
from alignx_fast.evaluation.evaluate import evaluate
from alignx_fast.evaluation.understanding import check_tasks
from alignx_fast.files import read_json, write_json, write_text
from alignx_fast.memory.advice import check_fits
from alignx_fast.memory.plan import card_bytes
from alignx_fast.models.adapters import Model
from alignx_fast.models.config import align_layer, load_config
from alignx_fast.models.tiny import BUILTIN_TINY, save_tiny_model
from alignx_fast.models.tokenizer import load_tokenizer
from alignx_fast.models.weights import load_model
from alignx_fast.report.scores import evaluations, score_table
from alignx_fast.report.write import write_report
from alignx_fast.training.stage import optimizer_name, run_stage, tokens_per_micro_batch

FREE = (
    "model.gradient_checkpointing",
    "model.offload_checkpoints",
    "model.attention",
    ".tokens_per_micro_batch",
    ".log_every",
    ".evaluate_every",
    ".save_every",
    ".keep_checkpoints",
    "tracking",
    "evaluation.tasks",
    "evaluation.task_folder",
)
"""Ends of the settings that may change when a run is resumed: memory, speed and record."""


class Run:
    """One run folder and the parts that fill it."""

    def __init__(self, settings: Settings, *, resume: bool) -> None:
        self.settings, self.folder, self.resume = settings, settings.output, resume
        self.console = Console(highlight=False)
        self.prepared: dict[str, Prepared] = {}
        for stage in settings.stages:
            optimizer_name(settings, getattr(settings, stage))
        for backend in settings.tracking:
            if importlib.util.find_spec(backend) is None:
                raise UserError(f"tracking names {backend}, which is not installed: `pip install {backend}`, or leave it out.")
        if settings.evaluation.enabled and settings.evaluation.tasks:  # before an hour of training, not after it
            check_tasks(settings.evaluation.tasks, settings.evaluation.task_folder)
        if torch.cuda.is_available() and settings.model.path != BUILTIN_TINY:
            load_config(settings.model.path, settings.model)
            check_fits(settings, card_bytes())
        self._open_folder()
        self.base = self._base_model()
        self.tokenizer: PreTrainedTokenizerFast = load_tokenizer(self.base, settings.model)
        self.align_layer = align_layer(settings.model, load_config(self.base, settings.model))

    def execute(self) -> Path:
        """Run every part that is not done yet; returns the report."""
        stages, evaluates = self.settings.stages, self.settings.evaluation.enabled
        for stage in stages:
            self._prepare(stage)
        if evaluates:
            self._evaluate("before", lambda: self._load(None))
        model: Model | None = None
        if "align" in stages:
            if self.settings.align.compare_ntp_only:
                model = self._stage("ntp_only", after=None)
                if evaluates:
                    self._evaluate("ntp_only", lambda: self._use(model, "ntp_only"))
                model = None  # the control is not used again: free its memory before the next model is loaded
            model = self._stage("align", after=None)
            if evaluates and stages[-1] != "align":
                self._evaluate("after_align", lambda: self._use(model, "align"))
        if "instruct" in stages:
            model = self._stage("instruct", after="align" if "align" in stages else None, model=model)
        if evaluates:
            self._evaluate("after", lambda: self._use(model, stages[-1]))
        self._publish(stages[-1])
        return write_report(self.folder)

    # The folder and what is asked of it.

    def _open_folder(self) -> None:
        file = self.folder / "settings.yaml"
        wanted = self.settings.model_dump(mode="json")
        if file.exists():
            if not self.resume:
                raise UserError(
                    f"{self.folder} already holds a run: continue it with --resume, or choose another folder with --output."
                )
            before, now = _flat(yaml.safe_load(file.read_text())), _flat(wanted)
            if changed := [key for key in now if now[key] != before.get(key) and not key.endswith(FREE)]:
                raise UserError(
                    f"{self.folder} was started with another value of {changed[0]}: give the same settings, or choose another "
                    "folder with --output."
                )
            write_text(file, yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True))
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(
                f"Cannot make the run folder {self.folder}: {error.strerror}. Choose another with --output."
            ) from None
        write_json(self.folder / "environment.json", record(self.settings.seed))
        write_text(file, yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True))

    def _base_model(self) -> str:
        if self.settings.model.path != BUILTIN_TINY:
            load_config(self.settings.model.path, self.settings.model)
            return self.settings.model.path
        folder = self.folder / "base"
        if not folder.exists():
            partial = self.folder / "base.partial"
            shutil.rmtree(partial, ignore_errors=True)
            save_tiny_model(training_texts(self.settings), self.settings.model, self.settings.seed, partial)
            partial.rename(folder)
        return str(folder)

    # Parts.

    def _prepare(self, stage: Stage) -> None:
        self.console.print(f"Preparing the data of stage {stage} ...")
        prepared = prepare(self.settings, self.tokenizer, stage)
        write_json(self.folder / "data" / f"{stage}.json", prepared.summary)
        if prepared.dropped_file is not None:
            shutil.copyfile(prepared.dropped_file, self.folder / "data" / f"dropped_{stage}.jsonl")
        summary = prepared.summary
        self.console.print(
            f"  {len(prepared.train):,} training rows, {len(prepared.dev):,} dev rows, {len(prepared.languages)} languages; "
            f"{sum(summary['dropped'].values()):,} of {summary['rows_read']:,} rows dropped (data/dropped_{stage}.jsonl)"
        )
        self.prepared[stage] = prepared

    def _stage(self, name: str, *, after: str | None, model: Model | None = None) -> Model | None:
        """Train a stage unless it is done; returns the model if one is in memory."""
        if (self.folder / name / "model").exists():
            return None
        if model is None:
            model = self._load(after)
        set_seed(self.settings.seed)
        stage: Stage = "instruct" if name == "instruct" else "align"
        run_stage(
            name,
            model,
            self.tokenizer,
            self.settings,
            self.prepared[stage],
            run=self.folder,
            align_layer=self.align_layer,
            tokens_per_micro_batch=tokens_per_micro_batch(self.settings, model, stage),
            resume=self.resume,
        )
        return model

    def _load(self, stage: str | None) -> Model:
        """The base model, or the model that a finished stage saved."""
        gc.collect()
        set_seed(self.settings.seed)
        if stage is None:
            return load_model(self.base, self.settings.model)
        folder = self.folder / stage / "model"
        if self.settings.model.tuning == "full":
            return load_model(str(folder), self.settings.model)
        return load_model(self.base, self.settings.model, adapter=folder)

    def _use(self, model: Model | None, stage: str) -> Model:
        return model if model is not None else self._load(stage)

    def _evaluate(self, when: str, model: Callable[[], Model]) -> None:
        file = self.folder / "evaluation" / f"{when}.json"
        if not file.exists():
            prepared = self.prepared[self.settings.stages[0]]
            with self.console.status(f"Evaluating ({when}) ..."):
                scores = evaluate(
                    model(),
                    self.tokenizer,
                    prepared.eval_meanings,
                    self.settings.evaluation,
                    when=when,
                    languages=self.settings.evaluation.languages or prepared.languages,
                    align_layer=self.align_layer,
                    template=choose(self.settings.data.template, self.tokenizer),
                    translate=when != "ntp_only",
                )
            write_json(file, scores)
        self._say_scores(when, read_json(file))

    def _say_scores(self, when: str, scores: dict) -> None:
        retrieval = scores["retrieval"]
        words = []
        if retrieval["average"] is not None:
            words.append(f"retrieval top-1 {retrieval['average']:.1%} (chance {retrieval['chance']:.1%})")
        directions = scores["translation"].values()
        if directions:
            words.append(f"chrF++ {sum(d['chrf++'] for d in directions) / len(directions):.1f}")
        self.console.print(f"Evaluation {when}: " + ", ".join(words))

    def _publish(self, last: str) -> None:
        folder = self.folder / "model"
        if not folder.exists():
            partial = self.folder / "model.partial"
            shutil.rmtree(partial, ignore_errors=True)
            # Hard links: the final model costs no second copy on disk.
            shutil.copytree(self.folder / last / "model", partial, copy_function=_link_or_copy)
            partial.rename(folder)


def train(settings: Settings, *, resume: bool) -> None:
    """Run the stages and end by naming the report."""
    run = Run(settings, resume=resume)
    report = run.execute()
    if scores := evaluations(run.folder):
        run.console.print(score_table(scores))
    for line in samples(run.folder):
        run.console.print(line, markup=False)
    run.console.print(f"\nModel:  {run.folder / 'model'}\nReport: {report}")


def samples(folder: Path, count: int = 4) -> list[str]:
    """A few translations of the last evaluation, right or wrong, from different directions."""
    file = folder / "evaluation" / "after.json"
    if not file.exists():
        return []
    directions = read_json(file)["translation"].items()
    lines = []
    for direction, scores in list(directions)[:: max(1, len(directions) // count)][:count]:
        example = scores["examples"][0]
        lines += [
            f"{direction}  {example['source']}",
            f"   model      {example['hypothesis']}",
            f"   reference  {example['reference']}",
        ]
    return lines


def _flat(tree: dict, prefix: str = "") -> dict[str, object]:
    found: dict[str, object] = {}
    for key, value in tree.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return {key: value for key, value in found.items() if key != "output"}


def _link_or_copy(source: str, target: str) -> None:
    try:
        Path(target).hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)
