"""One stage of training, from settings to a saved model: `align`, its control `ntp_only`, or `instruct`."""

import logging
import shutil
from pathlib import Path

import torch
from alignx_kernels import choose_implementation
from torch import nn
from transformers import PreTrainedTokenizerFast, TrainerCallback, TrainingArguments

from alignx_fast.config import AlignSettings, InstructSettings, ModelSettings, Settings, StageSettings
from alignx_fast.data.prepare import Prepared
from alignx_fast.files import publish, read_object, write_json
from alignx_fast.hardware import device, dtype_name, on_gpu, product_dtype, weight_dtype
from alignx_fast.losses.build import stage_losses
from alignx_fast.memory.plan import auto_tokens_per_micro_batch
from alignx_fast.models import attention
from alignx_fast.models.adapters import Model, save_tuning, without_peft_warnings
from alignx_fast.models.capture import causal_model
from alignx_fast.models.config import need_bitsandbytes
from alignx_fast.stages import Stage, StageName
from alignx_fast.training.callbacks import ProgressLine, RunLog, SaveByTheClock, StopAtStepEnd
from alignx_fast.training.checkpoints import last_checkpoint
from alignx_fast.training.processes import LostProcessError, Processes
from alignx_fast.training.sampler import rows_in_step, steps_in_epochs
from alignx_fast.training.trainer import AlignXTrainer

log = logging.getLogger(__name__)

OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw_8bit": "adamw_bnb_8bit", "paged_adamw_8bit": "paged_adamw_8bit"}


def training_arguments(
    settings: Settings, stage: StageSettings, folder: Path, rows: int, *, has_dev: bool = True
) -> TrainingArguments:
    """The Trainer's settings for a stage of `rows` training rows; without dev rows there are no dev losses."""
    per_step = rows_in_step(stage, rows)
    steps = stage.max_steps or steps_in_epochs(stage.epochs, rows, per_step)
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=per_step,
        learning_rate=stage.learning_rate,
        lr_scheduler_type=stage.scheduler,
        warmup_steps=min(stage.warmup_steps, steps // 10),
        weight_decay=stage.weight_decay,
        max_grad_norm=stage.max_grad_norm,
        optim=OPTIMIZERS[optimizer_name(settings, stage)],
        bf16=product_dtype(settings.model) == torch.bfloat16,
        fp16=on_gpu() and product_dtype(settings.model) == torch.float16,
        use_cpu=not on_gpu(),
        logging_steps=min(stage.log_every, steps),
        logging_nan_inf_filter=False,
        eval_strategy="steps" if has_dev else "no",
        eval_steps=stage.evaluate_every or max(1, -(-steps // 10)),
        eval_on_start=has_dev,
        save_strategy="steps",
        save_steps=stage.save_every or max(1, -(-steps // 5)),
        save_total_limit=stage.keep_checkpoints,
        seed=settings.seed,
        data_seed=settings.seed,
        report_to=list(settings.tracking) or "none",
        run_name=settings.name,
        disable_tqdm=True,
        log_level_replica="error",
        remove_unused_columns=False,
    )


def optimizer_name(settings: Settings, stage: StageSettings) -> str:
    """The optimizer that runs here.

    Raises:
        UserError: an 8-bit optimizer without bitsandbytes.
    """
    name = stage.optimizer_name(settings.model.tuning, on_gpu=on_gpu())
    if name != "adamw":
        group = "align" if isinstance(stage, AlignSettings) else "instruct"
        need_bitsandbytes(f"{group}.optimizer is {name}", f"--{group}.optimizer adamw")
    return name


def in_use(settings: Settings, stage: StageSettings, model: Model) -> dict[str, str]:
    """What a stage runs on here: attention, losses, optimizer, formats of weights and of matrix products."""
    weights = weight_dtype(settings.model)
    return {
        "attention": attention.in_use(causal_model(model)),
        "losses": choose_implementation(None, torch.empty(1, dtype=weights, device=device())),
        "optimizer": optimizer_name(settings, stage),
        "weights": "nf4" if settings.model.tuning == "qlora" else dtype_name(weights),
        "products": dtype_name(product_dtype(settings.model)),
    }


def loss_titles(stage: StageSettings) -> dict[str, str]:
    """What the report calls the losses of a stage, by name."""
    return {group.loss.name: group.loss.title for group in stage_losses(stage)}


def tokens_per_micro_batch(settings: Settings, model: nn.Module, stage: Stage, processes: Processes) -> int:
    """As set; auto asks the memory plan on a GPU, and takes what the fullest of all processes' GPUs has room for."""
    asked = settings.stage(stage).tokens_per_micro_batch
    if asked != "auto":
        return asked
    return -processes.largest(-auto_tokens_per_micro_batch(settings, model, stage))


def run_stage(
    name: StageName,
    model: Model,
    tokenizer: PreTrainedTokenizerFast,
    settings: Settings,
    prepared: Prepared,
    *,
    run: Path,
    align_layer: int,
    resume: bool,
    processes: Processes,
) -> None:
    """Train `model` in place and save it to RUN/NAME/model, whose presence marks the stage as done."""
    stage: AlignSettings | InstructSettings = settings.instruct if name is StageName.INSTRUCT else settings.align
    if name is StageName.NTP_ONLY:
        stage = settings.align.without_losses()
    folder = run / name
    tokens = tokens_per_micro_batch(settings, model, name.settings, processes)
    used = in_use(settings, stage, model) | ({"processes": str(processes.count)} if processes.count > 1 else {})
    checkpoint = processes.first(lambda: last_checkpoint(folder, set_aside=True) if resume else None)
    progress, stop = ProgressLine(name), StopAtStepEnd()
    callbacks: list[TrainerCallback] = [stop] + ([] if stage.save_every else [SaveByTheClock()])
    if processes.is_first:
        callbacks = [_begin_log(run, name, stage, used, tokens, checkpoint), progress, *callbacks]
    has_dev = len(prepared.dev) > 0
    if not has_dev:
        log.warning("There are no dev rows, as all of the data has one meaning or shares texts with it: no dev loss is taken.")
    if stage.has_losses and len(prepared.train) and prepared.summary["train"]["meanings"] < 2:
        log.warning("All training rows have one meaning: there is nothing that the contrastive loss could tell it from.")
    trainer = AlignXTrainer(
        model=model,
        args=training_arguments(settings, stage, folder, len(prepared.train), has_dev=has_dev),
        settings=stage,
        train_dataset=prepared.train,
        eval_dataset=prepared.dev if has_dev else None,
        align_layer=align_layer if isinstance(stage, AlignSettings) else None,
        tokens_per_micro_batch=tokens,
        train_on_prompt=settings.data.train_on_prompt,
        mixing_temperature=settings.data.mixing_temperature,
        processing_class=tokenizer,
        callbacks=callbacks,
    )
    try:
        with processes.agreed():
            with stop:
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
                stop.asked = processes.any(stop.asked)
            last = trainer.state.global_step
            if has_dev and not any("eval_loss" in line and line["step"] == last for line in trainer.state.log_history):
                trainer.evaluate()  # most versions of the Trainer did so at the last step
            trainer.check_result()
    except LostProcessError:
        raise
    except Exception:
        if saved := trainer.save_finished_steps():
            log.error("Step %d failed; the steps before it are saved in %s.", trainer.state.global_step + 1, saved)
        raise
    finally:
        progress.close()
    processes.first(lambda: _finish(folder, model, tokenizer, trainer, settings.model))


def _begin_log(
    run: Path,
    name: StageName,
    stage: StageSettings,
    used: dict[str, str],
    tokens: int,
    checkpoint: Path | None,
) -> RunLog:
    """The run log, opened with what the stage runs on; the record of the environment has it too."""
    resumed_step = int(checkpoint.name.removeprefix("checkpoint-")) if checkpoint else 0
    run_log = RunLog(run / "log.jsonl", name, resumed_step if checkpoint else -1)
    run_log.event("start", resumed_step, used | {"tokens_per_micro_batch": tokens, "loss_titles": loss_titles(stage)})
    environment = read_object(run / "environment.json") or {}
    write_json(run / "environment.json", environment | {"used": environment.get("used", {}) | {name: used}})
    parts = [*(f"{what} {how}" for what, how in used.items()), f"{tokens} tokens a micro-batch"]
    log.info("%s: %s", name, ", ".join(parts))
    return run_log


def _finish(
    folder: Path, model: Model, tokenizer: PreTrainedTokenizerFast, trainer: AlignXTrainer, settings: ModelSettings
) -> None:
    """Save the model under its name, which marks the stage as done."""
    record = {"steps": trainer.state.global_step, "rows_per_step": trainer.rows_per_step, "skipped_steps": trainer.skipped.count}
    write_json(folder / "stage.json", record)
    partial = folder / "model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    with without_peft_warnings():
        model.save_pretrained(str(partial))
    tokenizer.save_pretrained(partial)
    if settings.tuning != "full":
        save_tuning(partial, settings)
    publish(partial, folder / "model")
