"""Hidden states of chosen decoder layers, taken by hooks: nothing else is kept."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeVar, overload

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel

from alignx_fast.errors import UserError

Reduced = TypeVar("Reduced")


def causal_model(model: nn.Module) -> PreTrainedModel:
    """The AutoModelForCausalLM itself, out of a PEFT wrapper if there is one; adapters stay active inside it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model  # type: ignore[operator,return-value]


def body(model: nn.Module) -> nn.Module:
    """The model without its language-modelling head."""
    causal = causal_model(model)
    inner: nn.Module | None = getattr(causal, causal.base_model_prefix, None)
    if inner is None or inner is causal:
        raise UserError(f"{type(causal).__name__} does not separate its body from its head; choose a model with a decoder body.")
    return inner


def num_layers(model: nn.Module) -> int:
    """Number of decoder layers L; hidden states are numbered 0 (embeddings) to L (after the final norm)."""
    return int(causal_model(model).config.get_text_config().num_hidden_layers)


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """The list of decoder layers, whatever the family calls it."""
    count = num_layers(model)
    lists = [m for m in body(model).modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not lists:
        raise UserError(
            f"Cannot find the {count} decoder layers of {type(causal_model(model)).__name__}; this family is not supported."
        )
    return lists[0]


class _ReachedError(Exception):
    """Ends a forward pass once the deepest layer asked for has been captured."""


@overload
def captured(
    model: nn.Module, layers: Iterable[int], *, stop: bool = False
) -> AbstractContextManager[dict[int, torch.Tensor]]: ...


@overload
def captured(
    model: nn.Module, layers: Iterable[int], reduce: Callable[[torch.Tensor], Reduced], *, stop: bool = False
) -> AbstractContextManager[dict[int, Reduced]]: ...


@contextmanager
def captured(
    model: nn.Module,
    layers: Iterable[int],
    reduce: Callable[[torch.Tensor], object] | None = None,
    *,
    stop: bool = False,
) -> Iterator[dict[int, Any]]:
    """Collect hidden states of the packed batch that is run inside the block.

    Args:
        layers: 0 is the embedding output, l the output of the l-th decoder layer, `num_layers(model)` the state after the
            final norm.
        reduce: applied to each [T, D] state at once, so that only its result is kept.
        stop: end the forward pass after the deepest of these layers; what follows it in the `with` block is skipped.

    Yields:
        A dict that the forward pass fills: layer -> [T, D], or what `reduce` made of it.
    """
    states: dict[int, object] = {}
    numbers, blocks, last = sorted(set(layers)), decoder_layers(model), num_layers(model)

    def keep(layer: int, output: torch.Tensor | tuple[torch.Tensor, ...]) -> None:
        hidden = output if isinstance(output, torch.Tensor) else output[0]
        states[layer] = reduce(hidden[0]) if reduce else hidden[0]
        if stop and layer == numbers[-1]:
            raise _ReachedError

    def hook(layer: int) -> RemovableHandle:
        if layer == 0:
            return blocks[0].register_forward_pre_hook(
                lambda _, args, kwargs: keep(0, args[0] if args else kwargs["hidden_states"]), with_kwargs=True
            )
        module = body(model) if layer == last else blocks[layer - 1]
        return module.register_forward_hook(lambda _, __, output: keep(layer, output))

    handles = [hook(layer) for layer in numbers]
    try:
        yield states
    except _ReachedError:
        pass
    finally:
        for handle in handles:
            handle.remove()
