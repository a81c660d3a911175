"""Launch settings per GPU architecture: a small table in place of autotuning at start-up.

One dictionary per kernel maps compute capability to `Tile`: 80 = A100, 86 = RTX 30, 89 = RTX 40 and L4, 90 = H100, 100 = B200,
120 = RTX 50. `python -m alignx_kernels.compiled` compiles every entry and shows what the compiler made of it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any

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
        """Everything a launch takes: `kernel[grid](..., **tile.options)`."""
        return {**self.blocks, **self.compiler_options}

    @property
    def compiler_options(self) -> dict[str, int]:
        # Triton 3.10 stops fusing multiplications with additions by default.
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "enable_fp_fusion": True}


Table = Mapping[int, Tile]


@dataclass(frozen=True)
class Example:
    """One launch of a kernel as it would happen on a card, for compilation without one (see `compiled`)."""

    name: str
    kernel: Any  # the triton.jit function
    # Run-time arguments: Triton types, such as "*bf16", "i32", "fp32"; or a function from the architecture to them.
    arguments: Mapping[str, str] | Callable[[int], Mapping[str, str]]
    constants: Mapping[str, Any]  # constexprs besides the tile's, and integers that are 1 at launch
    tile: Callable[[int], Tile]  # architecture -> launch settings
    unaligned: frozenset[str] = field(default_factory=frozenset)  # integers not divisible by 16 at launch
    uses_dot: bool = False


def everywhere(tile: Tile) -> Table:
    """The same settings on every architecture."""
    return dict.fromkeys(ARCHITECTURES, tile)


def cdiv(size: int, block: int) -> int:
    """Blocks that cover `size`. Triton's own takes 2 microseconds."""
    return -(-size // block)


@cache
def architecture(device: torch.device) -> int:
    """The newest architecture of the table that is not newer than the device's; the oldest for Triton's interpreter."""
    if device.type != "cuda":
        return ARCHITECTURES[0]
    major, minor = torch.cuda.get_device_capability(device)
    return max((known for known in ARCHITECTURES if known <= 10 * major + minor), default=ARCHITECTURES[0])


# Both span kernels move bytes only: 16 bytes a thread and row, and few enough registers to keep many loads in flight.
SPAN_MEAN = everywhere(Tile({"BLOCK_T": 8, "BLOCK_D": 512}, num_warps=4))
SPAN_OWNER = everywhere(Tile({"BLOCK_T": 128}, num_warps=1))
# By classifier width I = BLOCK_I * CHUNKS. A thread holds 16 values of each of the six blocks of backward. Up to I = 128 a row has 32
# columns a chunk, or 8 threads, so that what is worked out once per pair is repeated 8 times only.
LANGUAGE_PAIRS = {
    64: everywhere(Tile({"BLOCK_A": 32, "BLOCK_I": 32, "CHUNKS": 2}, num_warps=4)),
    128: everywhere(Tile({"BLOCK_A": 16, "BLOCK_I": 32, "CHUNKS": 4}, num_warps=4)),
    256: everywhere(Tile({"BLOCK_A": 16, "BLOCK_I": 64, "CHUNKS": 4}, num_warps=8)),
    512: everywhere(Tile({"BLOCK_A": 8, "BLOCK_I": 128, "CHUNKS": 4}, num_warps=8)),
}


# InfoNCE. Products of similarities: the largest tile that keeps its accumulator in registers next to a pipeline of loads within
# shared memory; 128 x 256 halves the traffic from L2 of the queries. Columns at most 256.
_INFO_NCE_16_BIT = {
    80: Tile({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64}, num_warps=8, num_stages=3),
    86: Tile({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 32}, num_warps=8, num_stages=4),
    89: Tile({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 32}, num_warps=8, num_stages=4),
    # Without tensor descriptors (rows that are no multiples of 16 bytes apart).
    90: Tile({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64}, num_warps=8, num_stages=3),
    100: Tile({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64}, num_warps=8, num_stages=3),
    120: Tile({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 32}, num_warps=8, num_stages=4),
}
_INFO_NCE_DESCRIPTORS = _INFO_NCE_16_BIT | {
    90: Tile({"BLOCK_M": 128, "BLOCK_N": 256, "BLOCK_K": 64}, num_warps=8, num_stages=3),
    100: Tile({"BLOCK_M": 128, "BLOCK_N": 256, "BLOCK_K": 64}, num_warps=8, num_stages=3),
}
# fp32 stays exact ("ieee"), which runs on the ordinary units.
_INFO_NCE_32_BIT = everywhere(Tile({"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32}, num_warps=4, num_stages=2))
# Problems too small to give every multiprocessor a large tile.
_INFO_NCE_SMALL = everywhere(Tile({"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 64}, num_warps=4, num_stages=3))
_INFO_NCE_SMALL_UP_TO = 1024 * 2048  # N * M; a guess from 132 multiprocessors and 128 x 128 tiles, to be settled by measurement
# The rest moves bytes only. BLOCK_T counts parts of 32 columns.
INFO_NCE_MERGE = everywhere(Tile({"BLOCK_T": 64, "BLOCK_L": 32}, num_warps=4))
INFO_NCE_RESCALE = everywhere(Tile({"BLOCK_M": 16, "BLOCK_T": 8}, num_warps=8))
INFO_NCE_VECTORS = everywhere(Tile({"BLOCK_R": 4, "BLOCK_D": 512}, num_warps=4))
# A chunk's d loss / d similarity: large enough to run the products at full rate, small beside the card's memory.
SLAB_BYTES = {80: 512 << 20, 86: 128 << 20, 89: 128 << 20, 90: 512 << 20, 100: 512 << 20, 120: 128 << 20}


def info_nce_is_small(n: int, m: int) -> bool:
    """Whether N x M similarities are bound by the host: no tensor descriptors then, which cost it 20 microseconds a launch and more."""
    return n * m <= _INFO_NCE_SMALL_UP_TO


def info_nce_tile(dtype: torch.dtype, n: int, m: int, arch: int, descriptors: bool) -> Tile:
    """Launch settings of the kernels that work out N x M similarities."""
    if dtype == torch.float32:
        return _INFO_NCE_32_BIT[arch]
    if info_nce_is_small(n, m):
        return _INFO_NCE_SMALL[arch]
    return (_INFO_NCE_DESCRIPTORS if descriptors else _INFO_NCE_16_BIT)[arch]
