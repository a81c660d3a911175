"""Every launch as a GPU of sm_90 would get it, compiled and not run: the arguments of real calls, specialised as Triton does.

An integer that is 1 becomes a constant, one divisible by 16 an aligned one, None disappears: the interpreter shows none of this, and the
cases of `alignx_kernels.compiled` one choice each. Products of the library are left out.
"""

import torch
from alignx_kernels.common import dispatch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

LAUNCH = JITFunction.run


class NoCard:
    """What Triton asks of a driver before a launch."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device=None):
        return 0

    def get_active_torch_device(self):
        return torch.device("cpu")

    def map_python_to_cpp_type(self, kind):
        return kind


def compile_launches(monkeypatch):
    """Compile every launch from here on instead of running it; returns the list that their kernels' names are added to."""
    names = []

    def launch(self, *args, grid, warmup, **options):
        names.append(self.fn.__name__)
        return LAUNCH(self, *args, grid=grid, warmup=True, **options)

    driver.set_active(NoCard())
    monkeypatch.setattr(JITFunction, "run", launch)
    monkeypatch.setattr(dispatch, "INTERPRETED", True)
    return names
