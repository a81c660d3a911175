"""`alignx-fast translate`: try a trained model on a sentence."""

from collections.abc import Iterable

from alignx_fast.data.languages import check_language
from alignx_fast.data.spans import encode_prompts
from alignx_fast.evaluation.generation import answers
from alignx_fast.verbs.trained import open_trained


def translate_lines(path: str, lines: Iterable[str], source: str, target: str) -> None:
    """Print the translation of every line, one by one."""
    source, target = check_language(source), check_language(target)
    trained = open_trained(path)
    limits = trained.settings.evaluation
    for line in lines:
        prompt = encode_prompts(trained.tokenizer, trained.template, [trained.template.prompt_for_pair(source, target, line)])
        (answer,) = answers(
            trained.model,
            trained.tokenizer,
            prompt,
            max_new_tokens=limits.max_new_tokens,
            tokens_per_batch=limits.tokens_per_batch,
            end_marker=trained.template.after_response,
        )
        print(answer.text, flush=True)
