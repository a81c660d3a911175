"""The launch plan of InfoNCE: sizes, chunks and settings of one problem, worked out before anything is launched.

Shape legend: N queries, M keys, D hidden width, C rows of a chunk.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from triton.tools.tensor_descriptor import TensorDescriptor

from ..common.tiles import Tile, architecture, cdiv
from .problem import Inputs
from .tiles import (
    CHUNK_BYTES,
    KEPT_BYTES,
    MERGE,
    STATISTICS_ROWS,
    STORED,
    STRIP_BYTES,
    SUMS_BYTES,
    VECTORS,
    bytes_of_dlogits,
    is_small,
    keeps_all,
    kind_of_product,
    product_tile,
    row_stride,
    stored_dtype,
    uses_library,
)


@dataclass(frozen=True)
class LaunchPlan:
    """Sizes and launch settings of one problem."""

    n: int
    m: int
    d: int
    dtype: torch.dtype
    chunk: int  # rows taken at a time: whole row tiles, except in the last chunk
    kept: int  # rows whose roots a forward keeps until the sums of all rows are known: whole chunks
    strip: int  # rows of a chunk that one launch takes: all, unless the library's product makes the similarities
    stride: int  # elements from row to row of dlogits and roots
    use_descriptors: bool
    use_library: bool  # its product makes the similarities
    unit_queries: bool  # dlogits are made for queries of length 1, to spare the range of fp16
    precision: str  # in which fp32 is multiplied: "ieee" or "tf32"
    products: Tile  # of the kernels that compute similarities
    vectors: Tile
    merging: Tile
    stored: Tile

    def chunks(self) -> list[tuple[int, int]]:
        """(first row, row after the last) of every chunk."""
        return [(start, min(start + self.chunk, self.n)) for start in range(0, self.n, self.chunk)]

    def strips(self, start: int, stop: int) -> list[tuple[int, int]]:
        """(first row, row after the last) of every strip of a chunk."""
        return [(first, min(first + self.strip, stop)) for first in range(start, stop, self.strip)]

    def tiles(self, start: int, stop: int) -> tuple[int, int]:
        """Row tiles and column tiles of a chunk."""
        return cdiv(stop - start, self.products.blocks["BLOCK_M"]), cdiv(self.m, self.products.blocks["BLOCK_N"])

    def vector_groups(self, rows: int) -> int:
        """Programs of the kernels over so many vectors."""
        return cdiv(rows, self.vectors.blocks["BLOCK_R"])


class Operands(NamedTuple):
    """The tensors of one problem as the kernels read them; vectors have contiguous rows.

    query_loads, key_loads: what `dot_tile` loads tiles from, tensor descriptors or the vectors themselves.
    """

    queries_ND: torch.Tensor
    keys_MD: torch.Tensor
    query_loads: torch.Tensor | TensorDescriptor
    key_loads: torch.Tensor | TensorDescriptor
    temperature: torch.Tensor
    query_ids: torch.Tensor | None
    key_ids: torch.Tensor | None


def prepare(inputs: Inputs, stores_dlogits: bool) -> tuple[LaunchPlan, Operands]:
    """The plan of one problem and its operands. `stores_dlogits` tells whether chunks [C, M] are stored, which bounds C."""
    queries_ND, keys_MD = _rows_contiguous(inputs.queries_ND), _rows_contiguous(inputs.keys_MD)
    plan = make_plan(queries_ND, keys_MD, inputs.symmetric, stores_dlogits)
    loads: tuple[torch.Tensor | TensorDescriptor, torch.Tensor | TensorDescriptor] = queries_ND, keys_MD
    if plan.use_descriptors:
        blocks = plan.products.blocks
        loads = (
            TensorDescriptor.from_tensor(queries_ND, [blocks["BLOCK_M"], blocks["BLOCK_K"]]),
            TensorDescriptor.from_tensor(keys_MD, [blocks["BLOCK_N"], blocks["BLOCK_K"]]),
        )
    query_ids, key_ids = (ids if ids is None else ids.contiguous() for ids in (inputs.query_ids, inputs.key_ids))
    return plan, Operands(queries_ND, keys_MD, *loads, inputs.temperature.contiguous(), query_ids, key_ids)


def make_plan(queries_ND: torch.Tensor, keys_MD: torch.Tensor, symmetric: bool, stores_dlogits: bool) -> LaunchPlan:
    """Choose settings and chunks; launches nothing."""
    (n, d), m = queries_ND.shape, keys_MD.shape[0]
    arch = architecture(keys_MD.device)
    # Both of PyTorch's ways to set it show here, `torch.set_float32_matmul_precision` too.
    is_exact = keys_MD.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision != "tf32"
    use_library = uses_library(kind_of_product(keys_MD.dtype, is_exact), n, m, d, arch)
    without_descriptors = is_exact or use_library or is_small(n, m)
    use_descriptors = arch >= 90 and not without_descriptors and _describable(queries_ND) and _describable(keys_MD)
    products = product_tile(keys_MD.dtype, n, m, arch, use_descriptors, is_exact, use_library)
    stride = row_stride(m)
    rows = CHUNK_BYTES // (stride * bytes_of_dlogits(keys_MD.dtype)) if stores_dlogits else STATISTICS_ROWS
    block_m = products.blocks["BLOCK_M"]
    rows = min(rows, SUMS_BYTES // _bytes_of_sums(n, m, symmetric, products))
    chunk = min(n, max(1, rows // block_m) * block_m)
    strip = max(1, STRIP_BYTES // (4 * stride) // block_m) * block_m if use_library else chunk
    kept = KEPT_BYTES // (chunk * stride * stored_dtype(keys_MD.dtype).itemsize) * chunk
    return LaunchPlan(
        n=n,
        m=m,
        d=d,
        dtype=keys_MD.dtype,
        chunk=chunk,
        kept=n if keeps_all(n, m, keys_MD.dtype) else max(chunk, kept),
        strip=min(strip, chunk),
        stride=stride,
        use_descriptors=use_descriptors,
        use_library=use_library,
        unit_queries=keys_MD.dtype == torch.float16,
        precision="ieee" if is_exact else "tf32",
        products=products,
        vectors=VECTORS[arch],
        merging=MERGE[arch],
        stored=STORED[arch],
    )


def _bytes_of_sums(n: int, m: int, symmetric: bool, products: Tile) -> int:
    """Bytes of partial sums that each row of a chunk adds: three numbers a column tile, and its share of those of the columns."""
    of_columns = cdiv(n, products.blocks["BLOCK_M"]) if symmetric else 0
    return 12 * (cdiv(m, products.blocks["BLOCK_N"]) + of_columns)


def _rows_contiguous(vectors_XD: torch.Tensor) -> torch.Tensor:
    return vectors_XD if vectors_XD.stride(1) == 1 else vectors_XD.contiguous()


def _describable(vectors_XD: torch.Tensor) -> bool:
    """Whether the copy engine can read it: rows that start at multiples of 16 bytes and do not overlap."""
    apart, row_bytes = vectors_XD.stride(0) >= vectors_XD.shape[1] > 0, vectors_XD.stride(0) * vectors_XD.element_size()
    return apart and row_bytes % 16 == 0 and vectors_XD.data_ptr() % 16 == 0
