"""Launch settings of the language-matching kernels; importable without Triton."""

from ..common.tiles import Table, Tile, everywhere

# By classifier width I = BLOCK_I * CHUNKS. A thread holds 16 values of each of the six blocks of backward. Up to I = 128 a row has 32
# columns a chunk, or 8 threads, so that what is computed once per pair is repeated 8 times only.
PAIRS: dict[int, Table] = {
    64: everywhere(Tile({"BLOCK_A": 32, "BLOCK_I": 32, "CHUNKS": 2}, num_warps=4)),
    128: everywhere(Tile({"BLOCK_A": 16, "BLOCK_I": 32, "CHUNKS": 4}, num_warps=4)),
    256: everywhere(Tile({"BLOCK_A": 16, "BLOCK_I": 64, "CHUNKS": 4}, num_warps=8)),
    512: everywhere(Tile({"BLOCK_A": 8, "BLOCK_I": 128, "CHUNKS": 4}, num_warps=8)),
}
# The kernels keep one block of rows over the whole classifier width in registers.
MAX_WIDTH = max(PAIRS)


def pairs_tile(width: int, arch: int) -> Tile:
    """The entry for the narrowest width that holds `width`, at most `MAX_WIDTH`."""
    return PAIRS[min(known for known in PAIRS if known >= width)][arch]
