"""Launch settings of the InfoNCE kernels, and how large a chunk of dlogits may be; importable without Triton."""

import torch

from ..common.tiles import Tile, cdiv, everywhere

# A chunk of dlogits, the d loss / d similarity of some rows. Every chunk reads and writes the keys' gradient once, so that small chunks
# cost more than they save: at N = M = 65536, D = 4096, chunks of 128 MB would move 137 GB, these move 34 GB.
CHUNK_BYTES = 512 << 20
# Roots of exponentials (`kernels_similarity.halvings`) that are kept until the log-sums of all rows are known: what is beyond is computed again.
KEPT_BYTES = 512 << 20
# A strip of similarities in fp32, where the library's product makes them.
STRIP_BYTES = 128 << 20
# Partial sums of a chunk, which bound it where M is huge, and its rows where no dlogits are stored.
SUMS_BYTES = 128 << 20
STATISTICS_ROWS = 8192
# Rows of dlogits start at multiples of so many elements, so that a ragged M keeps wide stores and aligned products.
ROW_ALIGNMENT = 64

# Kernels that compute similarities: the largest tile that keeps its accumulator in registers next to a pipeline of loads within
# shared memory; 128 x 256 halves the traffic from L2 of the queries. Columns at most 256.
_16_BIT = {
    80: Tile({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64}, num_warps=8, num_stages=4),
    86: Tile({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 32}, num_warps=8, num_stages=4),
    89: Tile({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 32}, num_warps=8, num_stages=4),
    # Without tensor descriptors (rows that are no multiples of 16 bytes apart).
    90: Tile({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64}, num_warps=8, num_stages=4),
    100: Tile({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 64}, num_warps=8, num_stages=4),
    120: Tile({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 32}, num_warps=8, num_stages=4),
}
_DESCRIPTORS = _16_BIT | {
    90: Tile({"BLOCK_M": 128, "BLOCK_N": 256, "BLOCK_K": 64}, num_warps=8, num_stages=4),
    100: Tile({"BLOCK_M": 128, "BLOCK_N": 256, "BLOCK_K": 64}, num_warps=8, num_stages=4),
}
# fp32 on tensor cores, where PyTorch is allowed tf32: as many bytes in a tile as above.
_TF32 = {
    80: Tile({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 32}, num_warps=8, num_stages=4),
    86: Tile({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 16}, num_warps=8, num_stages=4),
    89: Tile({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 16}, num_warps=8, num_stages=4),
    90: Tile({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 32}, num_warps=8, num_stages=4),
    100: Tile({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 32}, num_warps=8, num_stages=4),
    120: Tile({"BLOCK_M": 128, "BLOCK_N": 128, "BLOCK_K": 16}, num_warps=8, num_stages=4),
}
_TF32_SMALL = everywhere(Tile({"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32}, num_warps=4, num_stages=3))
# Elsewhere fp32 stays exact ("ieee"), which runs on the ordinary units.
_32_BIT = everywhere(Tile({"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 32}, num_warps=4, num_stages=2))
# Problems too small to give every multiprocessor a large tile.
_SMALL = everywhere(Tile({"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 64}, num_warps=4, num_stages=3))
_SMALL_UP_TO = 1024 * 2048  # N * M; a guess from 132 multiprocessors and 128 x 128 tiles, to be settled by measurement
# Tiles of similarities that the library's product has made: kernels then load them part by part, and do not multiply.
_LOADED = everywhere(Tile({"BLOCK_M": 128, "BLOCK_N": 256, "BLOCK_K": 1}, num_warps=8))
# Who multiplies, by architecture and kind of product: from (D, N * M) on the library, whose product runs nearer to the hardware's rate but
# moves 8 bytes a pair on top; below that the kernels themselves. Empty until somebody has measured a card: by count the two are near even at
# D = 4,096 on sm_90. `python -m alignx_kernels tune` measures a card and prints its line.
LIBRARY_FROM: dict[int, dict[str, tuple[int, int]]] = {}

# The other kernels move bytes only. BLOCK_T counts tiles.
MERGE = everywhere(Tile({"BLOCK_T": 64, "BLOCK_L": 32}, num_warps=4))
STORED = everywhere(Tile({"BLOCK_M": 16, "BLOCK_N": 256}, num_warps=8))
VECTORS = everywhere(Tile({"BLOCK_R": 4, "BLOCK_D": 512}, num_warps=4))


def is_small(n: int, m: int) -> bool:
    """Whether the host's time bounds N x M similarities: then no tensor descriptors, each of which takes it 20 microseconds and more."""
    return n * m <= _SMALL_UP_TO


def row_stride(m: int) -> int:
    """Elements from row to row of dlogits and of kept roots."""
    return cdiv(m, ROW_ALIGNMENT) * ROW_ALIGNMENT


def stored_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which roots of exponentials are stored: that of the inputs, but fp16 has not the range."""
    return torch.float32 if dtype == torch.float16 else dtype


def bytes_of_dlogits(dtype: torch.dtype) -> int:
    """Bytes of an entry of dlogits and of the stored root it is made from, in one place unless their dtypes differ."""
    return dtype.itemsize if stored_dtype(dtype) == dtype else dtype.itemsize + stored_dtype(dtype).itemsize


def keeps_all(n: int, m: int, dtype: torch.dtype) -> bool:
    """Whether the roots of N x M similarities may be kept."""
    return n * row_stride(m) * stored_dtype(dtype).itemsize <= KEPT_BYTES


def kind_of_product(dtype: torch.dtype, is_exact: bool) -> str:
    """The name of a kind of product in `LIBRARY_FROM`."""
    return "fp32" if is_exact else "tf32" if dtype == torch.float32 else "16-bit"


def uses_library(kind: str, n: int, m: int, d: int, arch: int) -> bool:
    """Whether the library's product makes the similarities."""
    rule = LIBRARY_FROM.get(arch, {}).get(kind)
    return rule is not None and d >= rule[0] and n * m >= rule[1]


def product_tile(dtype: torch.dtype, n: int, m: int, arch: int, descriptors: bool, is_exact: bool, loaded: bool) -> Tile:
    """Launch settings of the kernels that compute N x M similarities.

    is_exact: fp32 that may not be rounded to tf32. loaded: the library's product has made the similarities.
    """
    if loaded:
        return _LOADED[arch]
    if is_exact:
        return _32_BIT[arch]
    if dtype == torch.float32:
        return (_TF32_SMALL if is_small(n, m) else _TF32)[arch]
    if is_small(n, m):
        return _SMALL[arch]
    return (_DESCRIPTORS if descriptors else _16_BIT)[arch]
