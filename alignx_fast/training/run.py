"""`alignx-fast train`: from settings to a trained, evaluated model in a run folder.

A run is a list of parts (base model, evaluations, stages), each with a file that appears last and marks it as done. Resuming runs the
same list and skips what is there; a stage that was cut off continues from its last checkpoint.

Several processes train the stages together. The first of them does the rest, and alone writes; the others wait and read.
"""

import gc
import importlib.util
import logging
import platform
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path

from rich.console import Console
from transformers import PreTrainedTokenizerFast, set_seed

from alignx_fast.config import BUILTIN_TINY, Settings
from alignx_fast.data.cards import short_cards
from alignx_fast.data.gather import held_out_instructions, training_texts
from alignx_fast.data.prepare import Prepared, prepare
from alignx_fast.data.rows import Instruction
from alignx_fast.data.templates import choose
from alignx_fast.errors import UserError
from alignx_fast.evaluation.evaluate import evaluate
from alignx_fast.evaluation.progress import shown
from alignx_fast.evaluation.results import EvaluatedAt, Evaluation
from alignx_fast.evaluation.understanding import check_tasks
from alignx_fast.files import link_or_copy, publish, read_json, read_object, write_json
from alignx_fast.hardware import on_gpu
from alignx_fast.lock import HOLDER_FILE, only_writer
from alignx_fast.memory.advice import check_fits
from alignx_fast.memory.plan import card_bytes
from alignx_fast.models.adapters import Model
from alignx_fast.models.config import align_layer, load_config
from alignx_fast.models.positions import check_positions, learned_positions_of
from alignx_fast.models.tiny import save_tiny_model
from alignx_fast.models.tokenizer import fit_tokenizer, load_tokenizer
from alignx_fast.models.weights import check_base, load_model
from alignx_fast.printing import one_line
from alignx_fast.report.labels import POINT_TITLES
from alignx_fast.report.read import PREPARED
from alignx_fast.report.scores import run_evaluations, score_table
from alignx_fast.report.write import write_report
from alignx_fast.stages import Stage, StageName
from alignx_fast.training.folder import holds_results, open_folder, write_settings
from alignx_fast.training.inputs import Fingerprints, RunInputs, data_fingerprints, model_fingerprint, refuse
from alignx_fast.training.processes import ALONE, Processes, join
from alignx_fast.training.sampler import rows_in_step
from alignx_fast.training.stage import optimizer_name, run_stage

log = logging.getLogger(__name__)


BASE = "the base model"


def model_of(stage: StageName) -> str:
    """What a sentence calls the model that a stage saved."""
    return f"the model of stage {stage}"


def check_runnable(settings: Settings, processes: int = 1) -> None:
    """Refuse what would fail hours later, before anything is read or written.

    Raises:
        UserError: a package is missing, the model cannot be read or does not fit the GPU, or it lacks a layer that is named.
    """
    for stage in settings.stages:
        optimizer_name(settings, settings.stage(stage))
        rows_in_step(settings.stage(stage), settings.stage(stage).step_rows, processes)
    for backend in settings.tracking:
        if importlib.util.find_spec(backend) is None:
            raise UserError(f"tracking names {backend}, which is not installed: `pip install {backend}`, or leave it out.")
    if settings.evaluation.enabled and settings.evaluation.tasks:
        check_tasks(settings.evaluation)
    layers = settings.model.tiny_layers
    if settings.model.path != BUILTIN_TINY:
        layers = load_config(settings.model.path, settings.model).get_text_config().num_hidden_layers
        if on_gpu():
            check_fits(settings, card_bytes())
        check_base(settings.model.path, settings.model)
    for loss in settings.align.losses:
        loss.check(layers)


class Run:
    """One run folder and the parts that fill it."""

    def __init__(self, settings: Settings, *, resume: bool, accept_changes: bool, processes: Processes = ALONE) -> None:
        self.settings, self.folder, self.resume, self.processes = settings, settings.output, resume, processes
        self.console = Console(highlight=False, markup=False, emoji=False)
        self.prepared: dict[str, Prepared] = {}
        self.inputs, self.accept_changes = RunInputs(self.folder), accept_changes
        self.accepted: list[str] = []
        self.base = processes.first(self._open)
        if not (self.folder / HOLDER_FILE).is_file():
            raise UserError(
                f"{self.folder} is another folder on {platform.node()}: all machines of a run need one folder that they share."
            )
        self.tokenizer: PreTrainedTokenizerFast = load_tokenizer(self.base, settings.model)
        self.config = load_config(self.base, settings.model)
        fit_tokenizer(self.tokenizer, self.config, self.base)
        self.align_layer = align_layer(settings.model, self.config)
        self.positions = learned_positions_of(self.config, trust_remote_code=settings.model.trust_remote_code)

    def execute(self) -> Path:
        """Run every part that is not done yet; returns the report."""
        stages, evaluates = self.settings.stages, self.settings.evaluation.enabled
        last = StageName(stages[-1])
        self.processes.first(self._prepare_stages)
        if not self.processes.is_first:  # from the cache that the first has filled
            self._prepare_stages()
        self._compare_inputs()
        if evaluates:
            self._evaluate(EvaluatedAt.BEFORE, lambda: self._load(None))
        model: Model | None = None
        if "align" in stages:
            if self.settings.align.compare_ntp_only:
                model = self._stage(StageName.NTP_ONLY, after=None)
                if evaluates:
                    self._evaluate(EvaluatedAt.NTP_ONLY, lambda: self._use(model, StageName.NTP_ONLY))
                model = None  # the control is not used again: free its memory before the next model is loaded
            model = self._stage(StageName.ALIGN, after=None)
            if evaluates and last is not StageName.ALIGN:
                self._evaluate(EvaluatedAt.AFTER_ALIGN, lambda: self._use(model, StageName.ALIGN))
        if "instruct" in stages:
            model = self._stage(StageName.INSTRUCT, after=StageName.ALIGN if "align" in stages else None, model=model)
        if evaluates:
            self._evaluate(EvaluatedAt.AFTER, lambda: self._use(model, last))
        return self.processes.first(lambda: self._publish(last))

    # Parts.

    def _open(self) -> str:
        """Make the folder ready; returns the base model."""
        self.accepted = open_folder(self.settings, self.inputs, resume=self.resume, accept_changes=self.accept_changes)
        return self._base_model()

    def _base_model(self) -> str:
        if self.settings.model.path != BUILTIN_TINY:
            return self.settings.model.path
        folder = self.folder / "base"
        if folder.exists() and self.inputs.changed({BASE: model_fingerprint(folder)}):
            log.warning("%s is not what this run left there: it is built again.", folder)
            shutil.rmtree(folder)
        if not folder.exists():
            partial = self.folder / "base.partial"
            shutil.rmtree(partial, ignore_errors=True)
            save_tiny_model(training_texts(self.settings), self.settings.model, self.settings.seed, partial)
            publish(partial, folder)
        return str(folder)

    def _prepare_stages(self) -> None:
        for stage in self.settings.stages:
            self._prepare(stage)

    def _prepare(self, stage: Stage) -> None:
        log.info("Preparing the data of stage %s ...", stage)
        prepared = prepare(self.settings, self.tokenizer, stage)
        summary = prepared.summary
        log.info(
            f"  {len(prepared.train):,} training rows, {len(prepared.dev):,} dev rows, {len(prepared.languages)} languages; "
            f"{summary['rows_read']:,} rows read, {summary['rows_reversed']:,} made by turning pairs round, "
            f"{sum(summary['dropped'].values()):,} not used (data/{stage}.json)"
        )
        longest = max(summary["train"]["tokens_longest"], summary["dev"]["tokens_longest"])
        remedy = f"cut rows there with `--data.max_length {self.positions}`, or choose another model"
        check_positions(self.positions, longest, f"The longest row of stage {stage} has", remedy)
        if unusable := summary["eval_texts_dropped"]:
            counts = ", ".join(f"{count:,} {reason}" for reason, count in unusable.items())
            log.warning("  Texts of %s that are not used: %s.", self.settings.data.evaluation, counts)
        self.prepared[stage] = prepared

    def _compare_inputs(self) -> None:
        """Compare data, weights and finished stages with what the run was started with, then write down what it goes on with."""
        now = data_fingerprints(self.prepared) | {BASE: self._base_fingerprint()}
        for part, value in now.items():
            if len(set(self.processes.each(value))) > 1:
                raise UserError(f"The machines of this run do not all find the same for {part}: give them the same files.")
        self.processes.first(lambda: self._go_on_with(now))

    def _go_on_with(self, now: Fingerprints) -> None:
        finished = [stage for stage in StageName if (self.folder / stage / "model").exists()]
        now |= {model_of(stage): model_fingerprint(self.folder / stage / "model") for stage in finished}
        changed = self.inputs.changed(now)
        if changed and not self.accept_changes:
            refuse(self.folder, changed)
        if self.resume and not self.inputs.fingerprints and holds_results(self.folder):
            log.warning("%s holds no fingerprints: data and weights are taken for those that it was started with.", self.folder)
        accepted = self.accepted + changed
        if accepted:
            log.warning("Accepted, and written down in %s: %s.", self.inputs.file, "; ".join(accepted))
            self._set_evaluations_aside()
        write_settings(self.settings)
        self.inputs.record(self.settings.model_dump(mode="json"), now, accepted)
        if cards := short_cards(self.settings.data):
            write_json(self.folder / PREPARED, cards)
        for stage, prepared in self.prepared.items():
            write_json(self.folder / "data" / f"{stage}.json", prepared.summary)
            if prepared.dropped_file is not None:
                shutil.copyfile(prepared.dropped_file, self.folder / "data" / f"dropped_{stage}.jsonl")

    def _base_fingerprint(self) -> str:
        """Of the files of a folder; a model of the hub stands under the commit that was fetched."""
        folder = Path(self.base)
        return model_fingerprint(folder) if folder.is_dir() else str(getattr(self.config, "_commit_hash", None))

    def _set_evaluations_aside(self) -> None:
        """Scores from before a change stand beside no others: they are taken anew."""
        folder = self.folder / "evaluation"
        if folder.exists():
            name = next(name for n in range(1, 1000) if not (self.folder / (name := f"evaluation-before-change-{n}")).exists())
            folder.rename(self.folder / name)

    def _stage(self, name: StageName, *, after: StageName | None, model: Model | None = None) -> Model | None:
        """Train a stage unless it is done; returns the model if one is in memory."""
        if self.processes.first((self.folder / name / "model").exists):
            return None
        if model is None:
            model = self._load(after)
        set_seed(self.settings.seed)
        stage = name.settings
        run_stage(
            name,
            model,
            self.tokenizer,
            self.settings,
            self.prepared[stage],
            run=self.folder,
            align_layer=self.align_layer,
            resume=self.resume,
            processes=self.processes,
        )
        self.processes.first(lambda: self.inputs.add(model_of(name), model_fingerprint(self.folder / name / "model")))
        return model

    def _load(self, stage: StageName | None) -> Model:
        """The base model, or the model that a finished stage saved."""
        gc.collect()
        set_seed(self.settings.seed)
        if stage is None:
            return load_model(self.base, self.settings.model)
        folder = self.folder / stage / "model"
        if self.settings.model.tuning == "full":
            return load_model(str(folder), self.settings.model)
        return load_model(self.base, self.settings.model, adapter=folder)

    def _use(self, model: Model | None, stage: StageName) -> Model:
        return model if model is not None else self._load(stage)

    def _evaluate(self, at: EvaluatedAt, model: Callable[[], Model]) -> None:
        self.processes.first(lambda: self._evaluate_alone(at, model))

    def _evaluate_alone(self, at: EvaluatedAt, model: Callable[[], Model]) -> None:
        file = self.folder / "evaluation" / f"{at}.json"
        scores = self._scores(file)
        if scores is None:
            prepared = self.prepared[self.settings.stages[0]]
            log.info("Evaluating: %s ...", POINT_TITLES[at])
            parts_file = file.with_suffix(".parts.json")
            scores = evaluate(
                model(),
                self.tokenizer,
                prepared.eval_meanings,
                self.settings.evaluation,
                evaluated_at=at,
                languages=self.settings.evaluation.languages or prepared.languages,
                align_layer=self.align_layer,
                template=choose(self.settings.data.template, self.tokenizer),
                translate=at is not EvaluatedAt.NTP_ONLY,
                instructions=self._instructions,
                show=shown,
                parts_file=parts_file,
            )
            write_json(file, scores.to_json())
            parts_file.unlink(missing_ok=True)
        self._print_scores(at, scores)

    @cached_property
    def _instructions(self) -> list[Instruction]:
        """Held-out instructions, where the evaluation asks for answers."""
        return held_out_instructions(self.settings) if self.settings.evaluation.continuations else []

    def _scores(self, file: Path) -> Evaluation | None:
        """The scores of an evaluation that was done; None where it is to do, also where they are damaged."""
        if not file.exists():
            return None
        tree = read_object(file)
        try:
            if tree:
                return Evaluation.from_json(tree)
        except ValueError:
            pass  # a value of another type than it was written with
        log.warning("%s cannot be read: its scores are taken again.", file)
        return None

    def _print_scores(self, at: EvaluatedAt, scores: Evaluation) -> None:
        words = []
        if scores.retrieval.average is not None:
            words.append(f"retrieval top-1 {scores.retrieval.average:.1%} (chance {scores.retrieval.chance:.1%})")
        if directions := scores.translation.values():
            words.append(f"chrF++ {sum(direction.chrf for direction in directions) / len(directions):.1f}")
        log.info("Evaluation %s: %s", at, ", ".join(words))

    def _publish(self, last: StageName) -> Path:
        """The final model, and the report, whose path is returned."""
        folder = self.folder / "model"
        if not folder.exists():
            partial = self.folder / "model.partial"
            shutil.rmtree(partial, ignore_errors=True)
            # Hard links: the final model costs no second copy on disk.
            shutil.copytree(self.folder / last / "model", partial, copy_function=link_or_copy)
            publish(partial, folder)
        return write_report(self.folder)


def train(settings: Settings, *, resume: bool, accept_changes: bool = False) -> None:
    """Run the stages and end by naming the report.

    Args:
        resume: continue the run in the output folder, where there is one.
        accept_changes: also on other data, weights or settings than it was started with; they are written down.
    """
    processes = join()
    with processes.agreed(), ExitStack() as held:
        check_runnable(settings, processes.count)
        processes.first(lambda: held.enter_context(only_writer(settings.output)))
        run = Run(settings, resume=resume, accept_changes=accept_changes, processes=processes)
        report = run.execute()
    if not processes.is_first:
        return
    if scores := run_evaluations(run.folder):
        run.console.print(score_table({POINT_TITLES[at]: evaluation for at, evaluation in scores.items()}))
    for line in samples(run.folder):
        run.console.print(line)
    run.console.print(f"\nModel:  {run.folder / 'model'}\nReport: {report}")


def samples(folder: Path, count: int = 4) -> list[str]:
    """A few translations of the last evaluation, right or wrong, from different directions."""
    file = folder / "evaluation" / f"{EvaluatedAt.AFTER}.json"
    if not file.exists():
        return []
    directions = Evaluation.from_json(read_json(file)).translation.items()
    lines = []
    for direction, scores in list(directions)[:: max(1, len(directions) // count)][:count]:
        example = scores.examples[0]
        lines += [
            f"{direction}  {one_line(example.source)}",
            f"   model      {one_line(example.hypothesis)}",
            f"   reference  {one_line(example.reference)}",
        ]
    return lines
