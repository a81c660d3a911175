"""`AlignXTrainer`: a `transformers.Trainer` whose batch is one whole optimizer step, cut into packed micro-batches here.

Because the step is known as a whole, the next-token loss is a mean over all its tokens and the contrastive loss can see all its
pairs. The number of tokens in memory then changes speed but not the result, except of a loss that is taken per micro-batch by choice
(`contrastive.negatives`, `matching.scope`).

Mixed precision is entered here: accelerate would do it in `model.forward`, and the step runs body and head without that.
"""

import gc
import logging
import time
from pathlib import Path
from typing import Any

import datasets
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import PreTrainedTokenizerBase, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from alignx_fast.config import AlignSettings, InstructSettings
from alignx_fast.data.mixing import language_groups
from alignx_fast.data.packing import PackedBatch, pack
from alignx_fast.data.spans import Example
from alignx_fast.errors import UserError
from alignx_fast.hardware import peak_memory_gib
from alignx_fast.losses.base import Loss
from alignx_fast.losses.build import build_losses, model_shape
from alignx_fast.models.adapters import without_peft_warnings
from alignx_fast.models.tokenizer import opening_token
from alignx_fast.training.checkpoints import (
    begin_checkpoint,
    damage,
    finish_checkpoint,
    load_losses,
    readable,
    remove_old_checkpoints,
    save_losses,
)
from alignx_fast.training.guard import (
    SkippedSteps,
    WaitingStep,
    bad_value,
    check_dev_loss,
    check_weights,
    non_finite_parts,
)
from alignx_fast.training.random_state import RandomState, random_state, set_random_state
from alignx_fast.training.sampler import StepSampler, rows_in_step, steps_in_epochs
from alignx_fast.training.shared_trainer import SharedTrainer
from alignx_fast.training.step import AlignStep, Terms
from alignx_fast.training.work import Prices, Work, energy_joules

log = logging.getLogger(__name__)


class AlignXTrainer(SharedTrainer):
    """Trains a causal language model by one stage of AlignX.

    Args:
        model: a causal model (or PEFT model of one) that uses packed attention, as `alignx_fast.models.weights.load_model` returns it.
        args: `TrainingArguments`; `gradient_accumulation_steps` must stay 1, since micro-batches are cut here.
        settings: `AlignSettings` for stage 1 (with all weights 0: plain continual pre-training), `InstructSettings` for stage 2.
        train_dataset, eval_dataset: rows with the columns of `alignx_fast.data.spans.Example`.
        align_layer: decoder layer whose states are aligned, 1 to the number of layers; stage 1 only.
        tokens_per_micro_batch: tokens in one forward pass. Halved, with a word about it, when memory runs out.
        train_on_prompt: next-token loss over the prompt too.
        mixing_temperature: T of the language mixing p ~ n^(1/T).
        processing_class: the tokenizer, saved with the model; needed by losses over sentences encoded apart, which its BOS opens.

    Raises:
        UserError: the dataset is empty, or too many steps have a loss or gradients that are not finite.
    """

    # Trainer allows for more kinds of these.
    model: nn.Module
    train_dataset: datasets.Dataset
    eval_dataset: datasets.Dataset | None

    def __init__(
        self,
        *,
        model: nn.Module,
        args: TrainingArguments,
        settings: AlignSettings | InstructSettings,
        train_dataset: datasets.Dataset,
        eval_dataset: datasets.Dataset | None = None,
        align_layer: int | None = None,
        tokens_per_micro_batch: int,
        train_on_prompt: bool = True,
        mixing_temperature: float = 1.0,
        processing_class: PreTrainedTokenizerBase | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        if not len(train_dataset):
            raise UserError("There is no row to train on; check the data settings with `alignx-fast preview`.")
        if args.gradient_accumulation_steps != 1:
            raise UserError("gradient_accumulation_steps must be 1: AlignXTrainer cuts each step into micro-batches itself.")
        if isinstance(settings, AlignSettings) and align_layer is None:
            raise UserError("align_layer is needed for stage 1: 1 to the number of decoder layers, usually half of it.")
        self.settings, self.train_on_prompt = settings, train_on_prompt
        self.tokens_per_micro_batch, self.mixing_temperature = tokens_per_micro_batch, mixing_temperature
        self.rows_per_step = rows_in_step(settings, len(train_dataset), self.processes.count)
        self.steps_per_epoch = steps_in_epochs(1, len(train_dataset), self.rows_per_step)
        if args.max_steps <= 0:
            args.max_steps = steps_in_epochs(args.num_train_epochs, len(train_dataset), self.rows_per_step)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)
        self.args._n_gpu = 1  # Trainer would split the model's inputs over all GPUs it sees, which packed rows cannot be
        self.failed_in_step = False
        shape = model_shape(model, align_layer or 1)
        self.align_step = AlignStep(
            model,
            [loss.to(args.device) for loss in build_losses(settings, shape, seed=args.seed)],
            autocast=self.accelerator.autocast,
            opening_token=None if processing_class is None else opening_token(processing_class),
            processes=self.processes,
        )
        self.skipped = SkippedSteps(
            Path(str(args.output_dir)), settings.max_skipped_steps, processing_class, writes=self.processes.is_first
        )
        self.add_callback(self.skipped)
        self._norm, self._dev_loss = 0.0, 0.0
        self._prices = Prices.of(model)
        self._restart_clock()

    # Data: one batch is the rows of one optimizer step.

    def get_train_dataloader(self) -> DataLoader[dict[str, list[Example]]]:
        columns = self.train_dataset.with_format("numpy", columns=["src_lang", "tgt_lang"])[:]
        groups = language_groups(columns["src_lang"], columns["tgt_lang"])
        sampler = StepSampler(
            groups,
            self.rows_per_step,
            self.args.max_steps,
            temperature=self.mixing_temperature,
            seed=self.args.data_seed or self.args.seed,
        )
        return DataLoader(self.train_dataset, batch_sampler=sampler, collate_fn=lambda rows: {"rows": rows})

    def pack(self, rows: list[Example]) -> list[PackedBatch]:
        """The rows of a step as micro-batches of all processes, in CPU memory."""
        return pack(rows, self.tokens_per_micro_batch, train_on_prompt=self.train_on_prompt, processes=self.processes.count)

    # The step.

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: object = None) -> torch.Tensor:
        """Forward and backward of one optimizer step; after an error the model and all random states are as before it."""
        model.train()
        before = random_state(self.args.device)
        remembered = {loss: loss.checkpoint() for loss in self.align_step.losses if loss.remembers}
        try:
            terms = self._step_in_memory(model, inputs["rows"], before)
        except Exception:
            self._zero_grad(model)
            set_random_state(before, self.args.device)
            self.failed_in_step = True
            raise
        self._tokens += sum(len(row["input_ids"]) for row in inputs["rows"])
        self._waiting = WaitingStep(terms, inputs["rows"], before, remembered)
        return torch.nan_to_num(terms["loss"].detach(), 0.0, 0.0, 0.0)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Trainer asks for it before it changes a weight: a step whose loss or gradients are not finite ends here, skipped."""
        norm, waiting = super()._get_grad_norm(model, grad_norm), self._waiting  # type: ignore[no-untyped-call]
        tensors = waiting.terms | {"the gradient norm": torch.as_tensor(norm, device=self.args.device)}
        values = dict(zip(tensors, torch.stack([tensor.float() for tensor in tensors.values()]).tolist(), strict=True))
        reason, norm = bad_value(values), values.pop("the gradient norm")
        if reason is not None and not (bad_value(values) is None and self._scaled_too_far()):
            self._skip(reason, waiting)
            return self._norm
        for name, value in values.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._steps += 1
        self._norm = norm if reason is None else self._norm
        return self._norm

    def _scaled_too_far(self) -> bool:
        """Whether fp16 gradients may have overflowed by loss scaling alone, which then skips the step itself and scales less."""
        scaler = self.accelerator.scaler
        return scaler is not None and scaler.get_scale() > 1

    def _skip(self, reason: str, step: WaitingStep) -> None:
        """Leave everything as it was before the step, but for the random state."""
        self._zero_grad(self.model)  # no optimizer changes a weight without a gradient
        for loss, kept in step.remembered.items():
            loss.restore(kept)
        hopeless = bool(non_finite_parts(self.model, self.align_step.losses))
        try:
            self.skipped.skip(self.state.global_step + 1, reason, step.rows, self.args.max_steps, hopeless=hopeless)
        except UserError:
            set_random_state(step.before, self.args.device)
            self.failed_in_step = True
            raise
        self.log({"skipped_steps": self.skipped.count})

    def _step_in_memory(self, model: nn.Module, rows: list[Example], before: RandomState) -> Terms:
        """The step; on an out-of-memory error the same rows are repeated in smaller pieces."""
        while True:
            try:
                return self._run_step(model, self.pack(rows))
            except torch.OutOfMemoryError:
                longest = max(len(row["input_ids"]) for row in rows)
                if self.tokens_per_micro_batch <= longest:
                    raise UserError(
                        f"The GPU has no room for one row of {longest} tokens: continue with --resume --model.gradient_checkpointing "
                        "true, or start again with a lower data.max_length or --model.tuning qlora."
                    ) from None
                self.tokens_per_micro_batch = max(longest, self.tokens_per_micro_batch // 2)
                log.warning("Out of GPU memory: repeating the step with %d tokens per micro-batch.", self.tokens_per_micro_batch)
                self.log({"tokens_per_micro_batch": self.tokens_per_micro_batch})
            self._zero_grad(model)
            set_random_state(before, self.args.device)
            gc.collect()  # an error and the frames it came through may hold each other, and tensors with them
            # A backward pass that failed within recomputed layers holds on to them until the next one.
            torch.autograd.backward(torch.zeros((), device=self.args.device, requires_grad=True))
            torch.cuda.empty_cache()

    def _run_step(self, model: nn.Module, batches: list[PackedBatch]) -> Terms:
        self._zero_grad(model)
        return self.align_step(batches, self.accelerator.backward)

    def _zero_grad(self, model: nn.Module) -> None:
        model.zero_grad()
        for loss in self.align_step.losses:
            loss.zero_grad()

    def trained_losses(self) -> list[Loss]:
        """Those of the step."""
        return self.align_step.losses

    def _loss_parameters(self) -> list[nn.Parameter]:
        """What is trained beside the model, matrices first: the order in which checkpoints hold their moments."""
        if not self.settings.has_losses:
            return []
        parameters = [parameter for loss in self.align_step.losses for parameter in loss.parameters() if parameter.requires_grad]
        return sorted(parameters, key=lambda parameter: parameter.dim() == 0)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        created = self.optimizer is None
        optimizer = super().create_optimizer() if model is None else super().create_optimizer(model)
        if created and self._loss_parameters():
            optimizer.add_param_group({"params": self._loss_parameters(), "weight_decay": 0.0})
            optimizer.register_step_post_hook(self._after_update)
        return optimizer

    def _after_update(self, *_: object) -> None:
        for loss in self.align_step.losses:
            loss.after_update()

    def _clip_grad_norm(self, model: nn.Module) -> torch.Tensor:
        parameters = [*model.parameters(), *self._loss_parameters()]
        norm: torch.Tensor = self.accelerator.clip_grad_norm_(parameters, self.args.max_grad_norm)
        return norm

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        parameters = sum(p.numel() for p in self.model.parameters())
        return 6 * parameters * sum(len(row["input_ids"]) for row in inputs["rows"])

    # Dev loss and log.

    @torch.no_grad()
    def evaluate(
        self, eval_dataset: datasets.Dataset | None = None, ignore_keys: object = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """Dev losses, always over the same rows: L_ntp per token, the others over as many pairs as a training step holds."""
        started, was_training = time.perf_counter(), self.model.training
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if dataset is None:
            raise UserError('There are no rows to evaluate on: give an eval_dataset, or set eval_strategy to "no".')
        # Dev rows of one meaning lie side by side and would mask each other as negatives.
        dataset = dataset.shuffle(seed=0, keep_in_memory=True)  # else its order would be written beside the data
        self.model.eval()
        sums: dict[str, float] = {}
        weights: dict[str, int] = {}
        for start in range(0, len(dataset), self.rows_per_step):
            rows = dataset.select(range(start, min(start + self.rows_per_step, len(dataset)))).to_list()
            batches = self.pack(rows)
            terms = self.align_step.dev_terms(batches)
            for loss in self.align_step.losses:
                name, weight = (
                    f"loss_{loss.name}",
                    len(rows) if loss.on_pairs else sum(batch.num_label_tokens for batch in batches),
                )
                sums[name] = sums.get(name, 0.0) + float(terms[name]) * weight
                weights[name] = weights.get(name, 0) + weight
        self.model.train(was_training)
        means = {name: value / weights[name] for name, value in sums.items()}
        total = sum(loss.weight * means[f"loss_{loss.name}"] for loss in self.align_step.losses)
        metrics = {f"{metric_key_prefix}_loss": total} | {f"{metric_key_prefix}_{k}": v for k, v in means.items()}
        self._paused += time.perf_counter() - started
        self._dev_loss = total
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of the loss terms since the last line, tokens per second and memory to a line of training losses."""
        if "loss" in logs and not self._steps:
            return  # every step since the last line was skipped
        if "loss" in logs:
            logs |= {name: total / self._steps for name, total in self._sums.items()}
            elapsed = time.perf_counter() - self._since - self._paused
            logs["tokens_per_second"] = self._tokens / max(elapsed, 1e-9)
            joules = None if self._joules is None else (energy_joules() or 0.0) - self._joules
            costs = self.processes.each((self._prices.flops(self.align_step.work), joules, peak_memory_gib()))
            flops, energies, memories = zip(*costs, strict=True)
            logs |= {"tokens": self._tokens, "seconds": elapsed, "flops": sum(flops)}
            if joules is not None:
                logs["joules"] = sum(energy or 0.0 for energy in energies)
            logs["memory_gib"] = max(memories)
            self._restart_clock()
        super().log(logs, start_time)
        logs["epoch"] = self.state.global_step / self.steps_per_epoch

    def _restart_clock(self) -> None:
        self._sums: dict[str, float] = {}
        self._tokens, self._steps, self._paused, self._since = 0, 0, 0.0, time.perf_counter()
        self.align_step.work, self._joules = Work(), energy_joules()

    # Checkpoints: the model as a plain Hugging Face folder, and what the losses have of their own beside it.

    def save_finished_steps(self) -> Path | None:
        """After an error within a step: a checkpoint of the steps before it; None where there is nothing new to save."""
        folder = self._checkpoint_folder()
        nothing_new = not self.failed_in_step or not self.state.global_step or (folder.is_dir() and damage(folder) is None)
        if self.processes.any(nothing_new):
            return None
        if non_finite_parts(self.model, self.align_step.losses):
            return None
        self._save_checkpoint(self.model)
        return folder

    def check_result(self) -> None:
        """Refuse to make a model of a stage most of whose steps were skipped, or whose weights or last dev loss are not finite.

        Raises:
            UserError: says what is wrong and what to try.
        """
        self.skipped.check_most_taken(self.state.global_step)
        check_weights(self.model, self.align_step.losses, self.state.global_step)
        check_dev_loss(self._dev_loss, self.state.global_step)

    def _checkpoint_folder(self) -> Path:
        assert self.args.output_dir is not None  # TrainingArguments has a default
        return Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        started = time.perf_counter()
        check_weights(self.model, self.align_step.losses, self.state.global_step)
        super()._save_checkpoint(model, trial)
        self._paused += time.perf_counter() - started

    def _write_checkpoint(self, model: nn.Module, trial: Any) -> None:
        folder, keep = self._checkpoint_folder(), self.args.save_total_limit
        begin_checkpoint(folder)
        self.args.save_total_limit = (
            None  # Trainer would remove the oldest by their file times, and before the new one is on the disk
        )
        try:
            super()._write_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = keep
        finish_checkpoint(folder)
        remove_old_checkpoints(folder.parent, keep, self.state.global_step, self.state.best_model_checkpoint)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        with without_peft_warnings():
            super()._save(output_dir, state_dict)
        folder = output_dir or self.args.output_dir
        assert folder is not None  # TrainingArguments has a default
        save_losses(self.align_step.losses, Path(folder))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        with readable(resume_from_checkpoint):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            load_losses(self.align_step.losses, Path(resume_from_checkpoint))
        if names := non_finite_parts(self.model, self.align_step.losses):
            raise UserError(
                f"{resume_from_checkpoint} holds NaN or infinity in {names[0]}: remove it to continue from the one before."
            )

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with readable(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with readable(checkpoint):
            super()._load_rng_state(checkpoint)
