"""Kernels are tested in two kinds of process, because Triton reads TRITON_INTERPRET once, when it is imported.

`interpreted/` runs every kernel on CPU tensors and needs TRITON_INTERPRET=1; the rest (compilation, real GPUs) needs it unset.
A plain `pytest` does both: `test_interpreted.py` starts one pytest per file of `interpreted/` and shows what it printed.
To work on one of them: `TRITON_INTERPRET=1 pytest tests/kernels/interpreted/test_x.py`.
"""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
collect_ignore_glob = ["test_*.py"] if INTERPRETED else ["interpreted/*"]


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
