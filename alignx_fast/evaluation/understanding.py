"""Understanding tasks (XNLI, XCOPA, Belebele, ...) through lm-evaluation-harness, an optional install."""

import logging
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from alignx_fast.errors import UserError
from alignx_fast.evaluation.results import TaskScore
from alignx_fast.models.adapters import Model
from alignx_fast.models.forward import generation_mode

METRICS = ("acc", "exact_match", "f1")
"""What is read of a task, the first of these that it has."""
BOOTSTRAP_SAMPLES = 100  # its default of 100,000 takes minutes for the deviation of an F1
BATCH = 8  # its log-likelihoods hold whole logits: half a gigabyte in bf16 at 256 tokens and 128k words


class TaskIndex(Protocol):
    """What is used of lm-eval's index of tasks."""

    all_tasks: list[str]


def check_tasks(tasks: Sequence[str], folder: Path | None) -> None:
    """Raise a UserError where lm-eval is not installed or knows no such task."""
    if folder is not None and not folder.is_dir():
        raise UserError(f"evaluation.task_folder is {folder}, which is no folder: give one with lm-eval task files.")
    if unknown := [task for task in tasks if task not in _task_index(folder).all_tasks]:
        raise UserError(f"lm-eval knows no task {unknown[0]!r}; `lm-eval ls tasks` lists them.")


def understanding(
    model: Model, tokenizer: PreTrainedTokenizerBase, tasks: Sequence[str], folder: Path | None, examples: int
) -> dict[str, TaskScore]:
    """Scores by task.

    Leaves the model in evaluation mode and reseeds the global generators: call it inside `undisturbed`. lm-eval fetches the data of its
    tasks from the Hugging Face hub unless they are in the local cache.

    Args:
        tasks: names that pass `check_tasks`; a group stands for its parts, and a task without any of `METRICS` is left out.
        examples: at most so many of each task.

    Raises:
        UserError: lm-eval cannot get the data of a task.
    """
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    with generation_mode(model):
        wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH)
        try:
            results = simple_evaluate(
                wrapped,
                tasks=list(tasks),
                limit=examples,
                task_manager=_task_index(folder),
                log_samples=False,
                bootstrap_iters=BOOTSTRAP_SAMPLES,
            )
        except (ConnectionError, FileNotFoundError) as error:
            raise UserError(
                f"lm-eval cannot get the data of {', '.join(tasks)} ({str(error).partition(chr(10))[0]}): connect to the hub once, "
                "or remove `evaluation.tasks`."
            ) from None
    counts = results["n-samples"]  # of tasks, not of groups
    return {
        task: score
        for task, values in results["results"].items()
        if task in counts and (score := _headline(values, counts[task]["effective"]))
    }


@cache
def _task_index(folder: Path | None) -> TaskIndex:
    """lm-eval's index of tasks, which takes ten seconds and more to make."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise UserError("Understanding tasks need lm-eval: install it with `pip install 'alignx-fast[understanding]'`.") from None
    index: TaskIndex = TaskManager(include_path=None if folder is None else str(folder))
    return index


def _headline(values: Mapping[str, object], n: int) -> TaskScore | None:
    """From lm-eval's {"acc,none": 0.4, "acc_stderr,none": 0.02, ...}; None without any of `METRICS`."""
    for metric in METRICS:
        for key, score in values.items():
            name, _, method = key.partition(",")
            if name == metric and isinstance(score, int | float):
                stderr = values.get(f"{metric}_stderr,{method}")
                return TaskScore(metric=metric, score=score, stderr=stderr if isinstance(stderr, float) else None, n=n)
    return None
