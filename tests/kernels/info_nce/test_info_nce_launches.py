"""Every launch of InfoNCE, compiled for an imagined card of sm_90."""

import pytest
import torch
from alignx_kernels import info_nce_loss
from alignx_kernels.info_nce import launch, launches, plan
from alignx_kernels.info_nce.tiles import is_small


@pytest.fixture(autouse=True)
def _sm_90(monkeypatch):
    for module in (launch, launches):
        monkeypatch.setattr(module, "multiply", lambda *_, **__: None)
    monkeypatch.setattr(plan, "architecture", lambda _: 90)


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("shape", [(1, 1, 1), (37, 37, 19), (130, 203, 64)], ids=str)
def test_info_nce(shape, symmetric, ids, compiled):
    n, m, d = shape
    queries, keys = (torch.randn(rows, d, dtype=torch.bfloat16, requires_grad=True) for rows in (n, m))
    temperature = torch.tensor(0.1, requires_grad=ids)
    same = {"query_ids": torch.arange(n), "key_ids": torch.arange(m)} if ids else {}
    loss = info_nce_loss(queries, keys, temperature=temperature, symmetric=symmetric, impl="triton", **same)
    loss.backward()
    assert {"statistics_kernel", "stored_dlogits_kernel"} <= set(compiled)


@pytest.mark.parametrize("symmetric", [False, True])
def test_info_nce_by_descriptors(symmetric, compiled):
    assert not is_small(1499, 1501)
    queries, keys = (torch.randn(rows, 64, dtype=torch.bfloat16, requires_grad=True) for rows in (1499, 1501))
    info_nce_loss(queries, keys, symmetric=symmetric, impl="triton").backward()
    assert {"statistics_kernel", "stored_dlogits_kernel"} <= set(compiled)


@pytest.mark.slow
@pytest.mark.parametrize("use_library", [False, True])
def test_similarities_that_are_computed_again(use_library, compiled, monkeypatch):
    monkeypatch.setattr(plan, "KEPT_BYTES", 1 << 20)
    monkeypatch.setattr(plan, "CHUNK_BYTES", 1 << 20)
    monkeypatch.setattr(plan, "STRIP_BYTES", 1 << 20)
    for module in (plan, launch):
        monkeypatch.setattr(module, "keeps_all", lambda *_: False)
    monkeypatch.setattr(plan, "uses_library", lambda *_: use_library)
    queries, keys = (torch.randn(1499, 64, dtype=torch.bfloat16, requires_grad=True) for _ in range(2))
    info_nce_loss(queries, keys, symmetric=True, impl="triton").backward()
    assert {"statistics_kernel", "merge_kernel", "dlogits_kernel", "stored_dlogits_kernel"} <= set(compiled)
