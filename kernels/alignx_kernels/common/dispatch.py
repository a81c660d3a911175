"""The one place that decides which implementation of an operator runs."""

import importlib.util
import os

import torch

IMPLEMENTATIONS = ("reference", "chunked", "triton")
TRITON_DTYPES = (torch.bfloat16, torch.float16, torch.float32)

# Triton reads the same variable, once, when it is imported.
INTERPRETED = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "yes", "y")
HAS_TRITON = importlib.util.find_spec("triton") is not None


def choose_implementation(impl: str | None, *tensors: torch.Tensor) -> str:
    """Name the implementation that runs: "reference", "chunked" or "triton".

    None takes the best that works for these tensors: "triton" where every tensor is on a GPU of compute capability 8.0 or later (or
    Triton's interpreter is on) and in bf16, fp16 or fp32, else "chunked", eager PyTorch in bounded memory, which runs anywhere and also in fp64.

    Raises: ValueError for an unknown name, and for "triton" where it cannot run.
    """
    if impl is None:
        return "chunked" if why_not_triton(*tensors) else "triton"
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl is {impl!r}; it must be one of {', '.join(map(repr, IMPLEMENTATIONS))}, or None for the best.")
    if impl == "triton" and (reason := why_not_triton(*tensors)):
        raise ValueError(f"impl='triton' cannot run here: {reason}.")
    return impl


def on_device(tensor: torch.Tensor) -> torch.cuda.device:
    """A context in which Triton, which launches on the current device, launches on the tensor's; nothing happens without CUDA."""
    return torch.cuda.device(tensor.device if tensor.is_cuda else -1)


def why_not_triton(*tensors: torch.Tensor) -> str | None:
    """Why the Triton kernels cannot run on these tensors, or None where they can."""
    if not HAS_TRITON:
        return "triton is not installed; `pip install triton` or pass impl=None"
    for tensor in tensors:
        if _too_old(tensor.device):
            return f"{tensor.device} is older than compute capability 8.0; pass impl=None"
        if not (tensor.is_cuda or INTERPRETED):
            return (
                f"a tensor is on {tensor.device}; move the tensors to a CUDA device, pass impl=None, or set TRITON_INTERPRET=1"
                " before Python starts to run the kernels in Triton's (slow) interpreter"
            )
        if tensor.is_floating_point() and tensor.dtype not in TRITON_DTYPES:
            return f"a tensor is {tensor.dtype}; cast it to bfloat16, float16 or float32, or pass impl=None"
    return None


def _too_old(device: torch.device) -> bool:
    """Whether the launch settings, made for the shared memory of compute capability 8.0 and later, do not fit the GPU."""
    return device.type == "cuda" and torch.cuda.get_device_properties(device).major < 8
