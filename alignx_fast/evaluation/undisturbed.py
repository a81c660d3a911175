"""Evaluate in the middle of training without leaving a trace."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from alignx_fast.hardware import on_gpu


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; afterwards every module's `training` flag and every random state is as before."""
    training = [module for module in model.modules() if module.training]
    with random_states_kept(), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            for module in training:
                module.training = True


@contextmanager
def random_states_kept() -> Iterator[None]:
    """Put the random states of Python, NumPy and torch (CPU and GPUs) back on leaving."""
    python, numpy = random.getstate(), np.random.get_state()  # lm-eval and others reseed the global generators
    cpu = torch.get_rng_state()
    gpus = torch.cuda.get_rng_state_all() if on_gpu() else []
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)
        if gpus:
            torch.cuda.set_rng_state_all(gpus)
