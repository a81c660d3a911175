"""The tokenizer of a model."""

from transformers import AutoTokenizer, PreTrainedTokenizerFast

from alignx_fast.config import ModelSettings
from alignx_fast.errors import UserError, first_line


def load_tokenizer(path: str, settings: ModelSettings) -> PreTrainedTokenizerFast:
    """The model's fast tokenizer, with a pad token.

    Raises:
        UserError: there is none, or it is a slow one, which has no character offsets.
    """
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=settings.trust_remote_code)
    except Exception as error:  # transformers raises many kinds for one mistake
        raise UserError(f"Cannot load a tokenizer from {path!r}: {first_line(error)}") from None
    if not isinstance(tokenizer, PreTrainedTokenizerFast):
        raise UserError(f"The tokenizer of {path!r} has no character offsets; a fast tokenizer (tokenizer.json) is needed.")
    if tokenizer.eos_token_id is None:
        # BERT ends a text with [SEP]
        if tokenizer.sep_token is None:
            raise UserError(
                f"The tokenizer of {path!r} has no end-of-sequence token; set `eos_token` in its tokenizer_config.json."
            )
        tokenizer.eos_token = tokenizer.sep_token
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer
