"""Understanding tasks (XNLI, XCOPA, Belebele, ...) through lm-evaluation-harness, an optional install."""

import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from alignx_fast.errors import UserError
from alignx_fast.models.forward import generation_mode
from alignx_fast.models.load import Model

BATCH = 8  # its log-likelihoods hold whole logits: half a gigabyte in bf16 at 256 tokens and 128k words


def check_tasks(tasks: Sequence[str], folder: Path | None) -> None:
    """Raise a UserError where lm-eval is not installed or knows no such task."""
    if folder is not None and not folder.is_dir():
        raise UserError(f"evaluation.task_folder is {folder}, which is no folder: give one with lm-eval task files.")
    if unknown := [task for task in tasks if task not in _manager(folder).all_tasks]:
        raise UserError(f"lm-eval knows no task {unknown[0]!r}; `lm-eval ls tasks` lists them.")


def understanding(
    model: Model, tokenizer: PreTrainedTokenizerBase, tasks: Sequence[str], folder: Path | None, examples: int
) -> dict[str, dict]:
    """The first metric of every task: {"xnli_de": {"metric": "acc", "score": 0.4, "stderr": 0.02, "n": 200}}.

    Leaves the model in evaluation mode and reseeds the global generators: call it inside `undisturbed`. lm-eval fetches the data of its
    tasks from the Hugging Face hub unless they are in the local cache.

    Args:
        tasks: names of lm-eval, or of task files in `folder`; a group gives its average and its parts.
        examples: at most so many of each task.

    Raises:
        UserError: as `check_tasks`, or lm-eval cannot get the data of a task.
    """
    check_tasks(tasks, folder)
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    with generation_mode(model):
        wrapped = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH)
        try:
            found = simple_evaluate(wrapped, tasks=list(tasks), limit=examples, task_manager=_manager(folder), log_samples=False)
        except (ConnectionError, FileNotFoundError) as error:
            raise UserError(
                f"lm-eval cannot get the data of {', '.join(tasks)} ({str(error).partition(chr(10))[0]}): connect to the hub once, "
                "or remove `evaluation.tasks`."
            ) from None
    counts = {task: count["effective"] for task, count in found["n-samples"].items()}
    parts = found["group_subtasks"]
    return {
        task: score | {"n": sum(counts.get(part, 0) for part in parts.get(task) or [task])}
        for task, values in found["results"].items()
        if (score := _headline(values))
    }


@cache
def _manager(folder: Path | None):
    """lm-eval's index of tasks, which takes ten seconds to make."""
    try:
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise UserError("Understanding tasks need lm-eval: install it with `pip install 'alignx-fast[understanding]'`.") from None
    return TaskManager(include_path=None if folder is None else str(folder))


def _headline(values: dict) -> dict:
    """From lm-eval's {"acc,none": 0.4, "acc_stderr,none": 0.02, ...}; empty for a group without an average."""
    for key, score in values.items():
        metric, _, method = key.partition(",")
        if method and isinstance(score, float) and not metric.endswith("_stderr"):
            stderr = values.get(f"{metric}_stderr,{method}")
            return {"metric": metric, "score": score, "stderr": stderr if isinstance(stderr, float) else None}
    return {}
