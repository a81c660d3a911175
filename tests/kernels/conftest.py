"""Kernels are tested in three kinds of process.

`test_*_interpreted.py` runs kernels on CPU tensors and needs TRITON_INTERPRET=1, which Triton reads once, when it is imported.
`test_*_launches.py` puts a driver without a GPU under Triton and compiles what real calls would launch. The rest (public behaviour,
compilation case by case, real GPUs) runs in the main process. A plain `pytest` does all: `test_apart.py` starts one pytest for each
file of the first two kinds. To work on one of them:

    TRITON_INTERPRET=1 pytest tests/kernels/span_mean/test_span_mean_interpreted.py
    pytest tests/kernels/span_mean/test_span_mean_launches.py
"""

import os

import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
APART = ["*/test_*_interpreted.py", "*/test_*_launches.py"]
collect_ignore_glob = ["*test_*.py"] if INTERPRETED else APART  # a file named on the command line runs


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA GPU"))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def compiled(monkeypatch):
    """Names of the kernels that were compiled for launches on an imagined card."""
    from imagined_card import compile_launches  # leans on Triton, which not every system has

    return compile_launches(monkeypatch)
