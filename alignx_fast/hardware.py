"""The device that this process computes on, and the number formats that follow from it."""

import resource

import torch

from alignx_fast.config import ModelSettings

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def on_gpu() -> bool:
    """Whether there is a CUDA GPU."""
    return torch.cuda.is_available()


def device() -> torch.device:
    """The first CUDA GPU where there is one, else the CPU."""
    return torch.device("cuda", 0) if on_gpu() else torch.device("cpu")


def bf16_works() -> bool:
    """Whether there is a GPU that computes in bfloat16 by itself."""
    return on_gpu() and torch.cuda.get_device_capability() >= (8, 0)


def compute_dtype() -> torch.dtype:
    """Number format of matrix products: bf16 on GPUs that have it, fp16 on older ones, fp32 on the CPU."""
    if not on_gpu():
        return torch.float32
    return torch.bfloat16 if bf16_works() else torch.float16


def weight_dtype(settings: ModelSettings) -> torch.dtype:
    """Number format of the weights: as asked, else fp32 for full fine-tuning, whose updates would vanish in bf16."""
    if settings.dtype != "auto":
        return DTYPES[settings.dtype]
    return torch.float32 if settings.tuning == "full" else compute_dtype()


def attention_dtype(settings: ModelSettings) -> torch.dtype:
    """Number format of queries, keys and values: that of matrix products on a GPU, where autocast is on, else that of the weights."""
    return compute_dtype() if on_gpu() else weight_dtype(settings)


def dtype_name(dtype: torch.dtype) -> str:
    """The name as in the settings, such as "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def peak_memory_gib() -> float:
    """Most memory used so far in GiB: of the GPU's allocator, or of the process on a CPU."""
    if on_gpu():
        return torch.cuda.max_memory_allocated() / 2**30
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib / 2**20
