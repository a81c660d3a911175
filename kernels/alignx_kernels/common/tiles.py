"""Launch settings: what a table of them holds, and which entry a device takes.

Each operator has a `tiles.py` that maps compute capability to `Tile`: 80 = A100, 86 = RTX 30, 89 = RTX 40 and L4, 90 = H100,
100 = B200, 120 = RTX 50. Such a table takes the place of autotuning at start-up. `python -m alignx_kernels.compiled` compiles every
entry and shows what the compiler made of it. Nothing here needs Triton.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property

import torch

ARCHITECTURES = (80, 86, 89, 90, 100, 120)
# Bytes one thread block can have.
SHARED_MEMORY = {80: 163 << 10, 86: 99 << 10, 89: 99 << 10, 90: 227 << 10, 100: 227 << 10, 120: 99 << 10}


@dataclass(frozen=True)
class Tile:
    """Compile-time sizes of a kernel (its BLOCK_* arguments by name), warps per program, and stages of the load pipeline."""

    blocks: Mapping[str, int]
    num_warps: int
    num_stages: int = 1

    @cached_property
    def options(self) -> dict[str, int]:
        """The settings a launch takes: `kernel[grid](..., **tile.options)`."""
        return {**self.blocks, **self.compiler_options}

    @property
    def compiler_options(self) -> dict[str, int]:
        # Triton 3.10 stops fusing multiplications with additions by default.
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "enable_fp_fusion": True}


Table = Mapping[int, Tile]


def everywhere(tile: Tile) -> Table:
    """The same settings on every architecture."""
    return dict.fromkeys(ARCHITECTURES, tile)


def cdiv(size: int, block: int) -> int:
    """Blocks that cover `size`. Triton's own function takes the host 2 microseconds."""
    return -(-size // block)


@cache
def architecture(device: torch.device) -> int:
    """The newest architecture of the table that is not newer than the device's; the oldest for Triton's interpreter."""
    if device.type != "cuda":
        return ARCHITECTURES[0]
    major, minor = torch.cuda.get_device_capability(device)
    return max((known for known in ARCHITECTURES if known <= 10 * major + minor), default=ARCHITECTURES[0])
