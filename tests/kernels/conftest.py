"""Kernels are tested in three kinds of process.

`interpreted/` runs every kernel on CPU tensors and needs TRITON_INTERPRET=1, which Triton reads once, when it is imported.
`specialised/` puts a driver without a card under Triton and compiles what real calls would launch. The rest (compilation by example,
real GPUs) runs in the main process. A plain `pytest` does all: `test_apart.py` starts one pytest per file of the two folders.
To work on one of them: `TRITON_INTERPRET=1 pytest tests/kernels/interpreted/test_x.py`, `pytest tests/kernels/specialised/test_x.py`.
"""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
collect_ignore_glob = ["specialised/*", "test_*.py" if INTERPRETED else "interpreted/*"]  # a file named on the command line runs


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
