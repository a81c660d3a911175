"""Understanding tasks (XNLI, XCOPA, Belebele, ...) through lm-evaluation-harness, an optional install."""

import difflib
import logging
import math
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedTokenizerBase

from alignx_fast.config import EvaluationSettings
from alignx_fast.errors import UserError, first_line
from alignx_fast.evaluation.harness import harness_model
from alignx_fast.evaluation.intervals import bootstrap_mean
from alignx_fast.evaluation.progress import Show
from alignx_fast.evaluation.results import Interval, TaskScore
from alignx_fast.evaluation.tasks import TASK_FILES
from alignx_fast.models.adapters import Model
from alignx_fast.models.forward import generation_mode

METRICS = ("acc", "f1", "exact_match")
"""What is read of a task, the first of these that it has."""
LOCAL = "local_"
"""How the tasks on local files begin."""
BOOTSTRAP_SAMPLES = 100  # its default of 100,000 takes minutes for the deviation of an F1

Example = Mapping[str, object]
"""What lm-eval logs of one example: the filter of its answers, and its value of each metric."""


class TaskIndex(Protocol):
    """What is used of lm-eval's index of tasks."""

    all_tasks: list[str]

    def load(self, task_list: list[str]) -> dict[str, dict[str, object]]: ...


def check_tasks(settings: EvaluationSettings) -> None:
    """Raise a UserError where lm-eval is not installed, knows no such task, or a local task lacks its data."""
    folder = settings.task_folder
    if folder is not None and not folder.is_dir():
        raise UserError(f"evaluation.task_folder is {folder}, which is no folder: give one with lm-eval task files.")
    index = _task_index(folder, settings.task_data)
    for task in settings.tasks:
        if task not in index.all_tasks:
            raise UserError(f"lm-eval knows no task {task!r}{_nearest(task, index.all_tasks)}; `lm-eval ls tasks` lists all.")
    if local := [task for task in settings.tasks if task.startswith(LOCAL)]:
        index.load(local)


def understanding(
    model: Model, tokenizer: PreTrainedTokenizerBase, settings: EvaluationSettings, show: Show
) -> dict[str, TaskScore]:
    """Scores by task.

    Leaves the model in evaluation mode and reseeds the global generators: call it inside `undisturbed`. lm-eval fetches the data of its
    own tasks from the Hugging Face hub unless they are in the local cache.

    Args:
        settings: with tasks that pass `check_tasks`; a group stands for its parts, and a task without any of `METRICS` is left out.
        show: shows the progress of each task.

    Raises:
        UserError: lm-eval cannot get the data of a task.
    """
    from lm_eval import simple_evaluate

    index = _task_index(settings.task_folder, settings.task_data)
    with generation_mode(model):
        tasks = _load(index, settings.tasks)
        results = simple_evaluate(
            harness_model(model, tokenizer, settings.tokens_per_batch, show, len(tasks)),
            tasks=list(tasks.values()),
            limit=settings.task_examples,
            task_manager=index,
            bootstrap_iters=BOOTSTRAP_SAMPLES,
        )
    scores = {name: _headline(results["results"][name], results["samples"][name]) for name in tasks}
    return {name: score for name, score in scores.items() if score is not None}


@cache
def _task_index(folder: Path | None, data: Path | None) -> TaskIndex:
    """lm-eval's index of tasks, which takes ten seconds and more to make."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise UserError("Understanding tasks need lm-eval: install it with `pip install 'alignx-fast[understanding]'`.") from None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    folders = [str(path) for path in (TASK_FILES, folder) if path is not None]
    index: TaskIndex = TaskManager(include_path=folders, metadata=None if data is None else {"task_data": str(data)})
    return index


def _nearest(task: str, known: Sequence[str]) -> str:
    """ "; did you mean a, b or c?", or nothing where no name is near."""
    near = difflib.get_close_matches(task, known, n=4)
    *most, last = near or [""]
    return f": did you mean {', '.join(most)}{' or ' if most else ''}{last}?" if near else ""


def _load(index: TaskIndex, names: Sequence[str]) -> dict[str, object]:
    """The tasks with their data by name, those of groups one by one."""
    try:
        return index.load(list(names))["tasks"]
    except (ConnectionError, FileNotFoundError) as error:
        raise UserError(
            f"lm-eval cannot get the data of {', '.join(names)} ({first_line(error).rstrip('.')}): connect to the hub once, "
            "or remove `evaluation.tasks`."
        ) from None


def _headline(values: Mapping[str, object], examples: Sequence[Example]) -> TaskScore | None:
    """From lm-eval's {"acc,none": 0.4, "acc_stderr,none": 0.02, ...} and its log of examples; None without any of `METRICS`."""
    for metric in METRICS:
        for key, score in values.items():
            name, _, method = key.partition(",")
            if name == metric and isinstance(score, int | float):
                stderr = values.get(f"{metric}_stderr,{method}")
                error = stderr if isinstance(stderr, float) else None
                answered = [example for example in examples if example["filter"] == method]
                return TaskScore(
                    metric=metric,
                    score=score,
                    stderr=error,
                    interval=_interval(score, error, [example[metric] for example in answered]),
                    n=len(answered),
                )
    return None


def _interval(score: float, stderr: float | None, values: Sequence[object]) -> Interval | None:
    """By bootstrap over the examples where the score is their mean, else 1.96 standard errors."""
    numbers = [float(value) for value in values if isinstance(value, int | float)]
    if numbers and len(numbers) == len(values) and math.isclose(sum(numbers) / len(numbers), score, abs_tol=1e-9):
        return bootstrap_mean([numbers])
    return None if stderr is None else Interval(low=score - 1.96 * stderr, high=score + 1.96 * stderr)
