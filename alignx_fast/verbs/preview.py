"""`alignx-fast preview`: the data as the model will see it, before any training."""

from rich.console import Console

from alignx_fast.config import BUILTIN_TINY, Settings
from alignx_fast.data.gather import training_texts
from alignx_fast.data.preview import preview
from alignx_fast.models.tiny import build_tokenizer
from alignx_fast.models.tokenizer import load_tokenizer


def show(settings: Settings, rows: int) -> None:
    """Print `rows` prepared rows of every stage and the dropped ones by reason."""
    if settings.model.path == BUILTIN_TINY:
        tokenizer = build_tokenizer(training_texts(settings), settings.model.tiny_vocabulary)
    else:
        tokenizer = load_tokenizer(settings.model.path, settings.model)
    Console(markup=False, emoji=False).print(preview(settings, tokenizer, rows))
