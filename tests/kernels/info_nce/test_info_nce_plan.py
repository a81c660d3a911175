"""The launch plan of InfoNCE: bounds on memory that no small problem reaches. Tensors have shapes only."""

import pytest
import torch

pytest.importorskip("triton", reason="Triton runs on Linux only")

from alignx_kernels.info_nce import plan
from alignx_kernels.info_nce.tiles import CHUNK_BYTES, KEPT_BYTES, SUMS_BYTES, keeps_all

MILLION = 1 << 20


def make_plan(n, m, *, symmetric, stores_dlogits, dtype=torch.bfloat16):
    queries, keys = (torch.empty(rows, 64, device="meta", dtype=dtype) for rows in (n, m))
    return plan.make_plan(queries, keys, symmetric, stores_dlogits)


def bytes_of_sums(made, symmetric):
    row_tiles, column_tiles = made.tiles(0, made.chunk)
    return 12 * (column_tiles * made.chunk + (row_tiles * made.n if symmetric else 0))


@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("stores_dlogits", [False, True])
@pytest.mark.parametrize(("n", "m"), [(1000, MILLION), (MILLION, MILLION), (65536, 65536)])
def test_buffers_of_a_chunk_are_bounded(n, m, symmetric, stores_dlogits):
    made = make_plan(n, m, symmetric=symmetric, stores_dlogits=stores_dlogits)
    assert bytes_of_sums(made, symmetric) <= SUMS_BYTES
    if stores_dlogits:
        assert made.chunk * made.stride * 2 <= CHUNK_BYTES
        assert made.kept * made.stride * 2 <= KEPT_BYTES


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_all_rows_are_kept_where_they_may_be(dtype):
    largest = 16384 if dtype == torch.bfloat16 else 11584
    assert keeps_all(largest, largest, dtype)
    assert not keeps_all(largest, largest + 64, dtype)
    assert make_plan(largest, largest, symmetric=True, stores_dlogits=True, dtype=dtype).kept == largest


def test_rows_of_dlogits_are_aligned_where_m_is_ragged():
    made = make_plan(100, 30011, symmetric=False, stores_dlogits=True)
    assert made.stride % 64 == 0
    assert 0 <= made.stride - 30011 < 64
