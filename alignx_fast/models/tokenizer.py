"""The tokenizer of a model."""

from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase, PreTrainedTokenizerFast

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


def fit_tokenizer(tokenizer: PreTrainedTokenizerFast, config: PreTrainedConfig, path: str) -> None:
    """Make sure that every token that can appear has an embedding; a pad token without one gives way to the end token.

    Special tokens without an embedding do no harm where neither the prompt layout nor the ends of a text use them: text never becomes one.

    Raises:
        UserError: another token has none.
    """
    rows = config.get_text_config().vocab_size
    beyond = {token: index for token, index in tokenizer.get_vocab().items() if index >= rows}
    if tokenizer.pad_token in beyond:
        tokenizer.pad_token = tokenizer.eos_token
    layout, added = str(tokenizer.chat_template or ""), tokenizer.added_tokens_decoder
    ends = (tokenizer.bos_token, tokenizer.eos_token, tokenizer.unk_token, tokenizer.sep_token, tokenizer.cls_token)
    unused = {token for token, index in beyond.items() if index in added and added[index].special and token not in ends}
    if used := [token for token in beyond if token not in unused or token in layout]:
        raise UserError(
            f"The tokenizer of {path} has tokens that the model has no embedding for ({len(used)}, such as {used[0]!r}; the model has "
            f"{rows:,}): use the tokenizer that belongs to the model, or enlarge the model's embeddings with resize_token_embeddings and save it."
        )


def opening_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The token that opens a sentence encoded by itself: BOS, else what closes texts and therefore stands between them in training."""
    candidates = (tokenizer.bos_token_id, tokenizer.cls_token_id, tokenizer.eos_token_id, tokenizer.sep_token_id)
    return next((token for token in candidates if token is not None), None)
