"""Understanding tasks (XNLI, XCOPA, ...) through lm-evaluation-harness, an optional install."""

from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from alignx_fast.errors import UserError
from alignx_fast.evaluation.undisturbed import undisturbed
from alignx_fast.models.forward import generation_mode
from alignx_fast.models.load import Model


def run_understanding(
    model: Model, tokenizer: PreTrainedTokenizerBase, tasks: Sequence[str], limit: int | None = None
) -> dict[str, dict]:
    """lm-eval's scores by task ({"xnli_de": {"acc,none": 0.4, ...}}) on at most `limit` examples each.

    lm-eval fetches its task data from the Hugging Face hub unless it is in the local cache.

    Raises:
        UserError: lm-eval is not installed, or knows no such task.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise UserError("Understanding tasks need lm-eval: install it with `pip install 'alignx-fast[understanding]'`.") from None
    manager = TaskManager()
    if unknown := [task for task in tasks if task not in manager.all_tasks]:
        raise UserError(f"lm-eval knows no task {unknown[0]!r}; `lm-eval ls tasks` lists them.")
    with undisturbed(model), generation_mode(model):  # lm-eval reseeds every generator
        wrapped = HFLM(pretrained=model, tokenizer=tokenizer)
        results = simple_evaluate(wrapped, tasks=list(tasks), limit=limit, task_manager=manager)
    return results["results"]
