"""What a loss tells the memory plan: bytes by phase of a step, and settings that would save some."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from alignx_fast.memory.sizes import Sizes

PHASES = ("first_pass", "losses", "head", "backward", "optimizer")
"""The phases of an optimizer step, in order; `alignx_fast.memory.formulas` says what happens in each."""
GRAPH = ("head", "backward")
"""The phases in which a micro-batch's activations are held."""

COMPUTE = 2
"""Bytes of a value in bf16."""


@dataclass(frozen=True)
class Part:
    """One line of the plan; without phases it is held all the time."""

    name: str
    bytes: int
    phases: tuple[str, ...] = PHASES


@dataclass(frozen=True)
class Saving:
    """A change of one of the loss's settings that saves memory, what it costs, and a rank of that cost."""

    setting: str
    value: object
    price: str
    cost: int


@dataclass(frozen=True)
class PlanInput:
    """What the bytes of a loss depend on, besides its own settings."""

    sizes: "Sizes"
    tokens: int
    """Tokens of a micro-batch, T."""
    pairs: int
    """Pairs or rows of an optimizer step, N."""
    optimizer: str
    residual: int
    """Bytes of a value of the hidden states."""
    autocast: bool
    """Weights are in fp32 and are cast to bf16 for every product."""
    full: bool
    """All weights are trained, not adapters."""


def optimizer_bytes(tensors: Iterable[int], optimizer: str, value: int) -> int:
    """Two moments per value; the 8-bit optimizers keep tensors below 4,096 values in fp32, and two fp32 scales per 256 values."""
    if optimizer == "adamw":
        return 2 * value * sum(tensors)
    return sum(8 * n if n < 4096 else 2 * n + 8 * -(-n // 256) for n in tensors)


def vector_parts(pairs: int, width: int, vectors: int) -> Part:
    """Sentence vectors of a whole step and their gradients: `vectors` of every pair."""
    return Part("sentence vectors", 2 * COMPUTE * width * pairs * vectors)
