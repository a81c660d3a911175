"""One launch of a kernel as it would happen on a GPU, for compilation without one (see `compiled`)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from .private_apis import Kernel
from .tiles import Tile


@dataclass(frozen=True)
class CompileCase:
    """A kernel with the types of its arguments and, per architecture, its launch settings."""

    name: str
    kernel: Kernel
    # Run-time arguments: Triton types, such as "*bf16", "i32", "fp32"; or a function from the architecture to them.
    arguments: Mapping[str, str] | Callable[[int], Mapping[str, str]]
    constants: Mapping[str, object]  # constexprs besides the tile's, and integers that are 1 at launch
    tile: Callable[[int], Tile]  # architecture -> launch settings
    unaligned: frozenset[str] = field(default_factory=frozenset)  # integers not divisible by 16 at launch
    uses_dot: bool = False

    def types(self, arch: int) -> Mapping[str, str]:
        """The types of the run-time arguments on this architecture."""
        return self.arguments(arch) if callable(self.arguments) else self.arguments
