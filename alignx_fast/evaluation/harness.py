"""A model as lm-evaluation-harness takes it."""

import copy
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from transformers import PreTrainedTokenizerBase

from alignx_fast.evaluation.progress import Advance, Show
from alignx_fast.models.adapters import Model

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM
else:
    HFLM = object  # lm-eval need not be installed where this module is imported

LOGITS = 2**28
"""Logits of one forward pass at most: lm-eval holds them whole, half a gigabyte in bf16, and their logarithms beside them."""
Request = tuple[tuple[str, str], list[int], list[int]]
"""Context and continuation as text, then as tokens."""
Answer = TypeVar("Answer")


def harness_model(
    model: Model, tokenizer: PreTrainedTokenizerBase, tokens_per_batch: int, show: Show, tasks: int
) -> "TaskByTask":
    """lm-eval's own model class with `TaskByTask` before it."""
    from lm_eval.models.huggingface import HFLM

    class HarnessModel(TaskByTask, HFLM):  # type: ignore[misc]
        """What lm-eval calls."""

    wrapped = HarnessModel(pretrained=model, tokenizer=copy.deepcopy(tokenizer))  # it may set a padding token
    wrapped.advance = lambda count: None
    wrapped.tokens_per_batch, wrapped.show, wrapped.tasks = tokens_per_batch, show, tasks
    wrapped.tokens_with_logits = min(tokens_per_batch, LOGITS // model.config.get_text_config().vocab_size)
    return wrapped


class TaskByTask(HFLM):  # type: ignore[misc]
    """Answers task by task, in batches as large as `tokens_per_batch` allows for the longest request.

    `show` shows the progress of each of the `tasks` tasks, in place of lm-eval's own bars.
    """

    tokens_per_batch: int
    tokens_with_logits: int
    """The same for passes whose logits are kept."""
    show: Show
    tasks: int
    begun: int = 0
    """Tasks so far."""
    advance: Advance
    """Called with the number of requests in each batch."""

    def loglikelihood(self, requests: Sequence["Instance"], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
        return self._task_by_task(requests, super().loglikelihood)

    def _loglikelihood_tokens(
        self, requests: Sequence[Request], disable_tqdm: bool = False, override_bs: int | None = None
    ) -> list[tuple[float, bool]]:
        longest = max(len(context) + len(continuation) for _, context, continuation in requests)
        self.batch_size_per_gpu = max(1, self.tokens_with_logits // longest)
        answers: list[tuple[float, bool]] = super()._loglikelihood_tokens(requests, disable_tqdm, override_bs)
        return answers

    def _model_call(self, inps: torch.Tensor, *options: object, **named_options: object) -> torch.Tensor:
        logits: torch.Tensor = super()._model_call(inps, *options, **named_options)
        self.advance(len(inps))
        return logits

    def generate_until(self, requests: Sequence["Instance"], disable_tqdm: bool = False) -> list[str]:
        return self._task_by_task(requests, self._generate_for_task)

    def _generate_for_task(self, requests: Sequence["Instance"], disable_tqdm: bool) -> list[str]:
        room = max(request.args[1].get("max_gen_toks", self.max_gen_toks) for request in requests)
        longest = room + max(len(self.tok_encode(request.args[0])) for request in requests)
        self.batch_size_per_gpu = max(1, self.tokens_per_batch // longest)
        answers: list[str] = super().generate_until(requests, disable_tqdm)
        return answers

    def _model_generate(self, context: torch.Tensor, *options: object, **named_options: object) -> torch.Tensor:
        tokens: torch.Tensor = super()._model_generate(context, *options, **named_options)
        self.advance(len(context))
        return tokens

    def _task_by_task(self, requests: Sequence["Instance"], answer: Callable[..., list[Answer]]) -> list[Answer]:
        """The answers to all requests, which lm-eval hands over one task after the other."""
        answers: list[Answer] = []
        for name, of_task in itertools.groupby(requests, lambda request: request.task_name):
            asked = list(of_task)
            self.begun += 1
            with self.show(f"answering {name} (task {self.begun} of {self.tasks})", len(asked)) as self.advance:
                answers += answer(asked, disable_tqdm=True)
        return answers
