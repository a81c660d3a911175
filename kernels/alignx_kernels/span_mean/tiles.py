"""Launch settings of the span pooling kernels; importable without Triton."""

from ..common.tiles import Tile, everywhere

# Forward and backward move bytes only: 16 bytes a thread and row, and few enough registers to keep many loads in flight.
POOLING = everywhere(Tile({"BLOCK_T": 8, "BLOCK_D": 512}, num_warps=4))
OWNER = everywhere(Tile({"BLOCK_T": 128}, num_warps=1))
