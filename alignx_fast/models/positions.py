"""Models with a table of learned positions cannot read past its end."""

import copy

from accelerate import init_empty_weights
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig

from alignx_fast.errors import UserError
from alignx_fast.models.capture import causal_model


def learned_positions(model: nn.Module) -> int | None:
    """Tokens that a sequence may have; None where positions are computed, so that there is no such end."""
    causal = causal_model(model)
    longest = getattr(causal.config.get_text_config(), "max_position_embeddings", None)
    words = causal.get_input_embeddings().weight
    tables = [module for module in causal.modules() if isinstance(module, nn.Embedding) and module.weight is not words]
    rooms = [table.num_embeddings - getattr(table, "offset", 0) for table in tables]  # some families leave the first rows unused
    return next((room for room in rooms if room == longest), None)


def learned_positions_of(config: PreTrainedConfig, *, trust_remote_code: bool) -> int | None:
    """The same of a model whose weights were not read."""
    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(  # type: ignore[no-untyped-call]
            copy.deepcopy(config), trust_remote_code=trust_remote_code
        )
    return learned_positions(model)


def check_positions(positions: int | None, tokens: int, what: str, remedy: str) -> None:
    """Refuse a sequence that is longer than the learned positions.

    Args:
        positions: as `learned_positions` returns it.
        what: what has so many tokens, as the beginning of a sentence.
        remedy: what to do about it.

    Raises:
        UserError: it is too long.
    """
    if positions is not None and tokens > positions:
        raise UserError(f"{what} {tokens:,} tokens, and the model has {positions:,} learned positions: {remedy}.")
