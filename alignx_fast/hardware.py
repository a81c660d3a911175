"""The device that this process computes on, and the number formats that follow from it."""

import resource

import torch

from alignx_fast import process
from alignx_fast.config import BUILTIN_TINY, ModelSettings

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def on_gpu() -> bool:
    """Whether there is a CUDA GPU."""
    return torch.cuda.is_available()


def device() -> torch.device:
    """The CUDA GPU of this process, which is the first where it is alone, else the CPU."""
    return torch.device("cuda", process.local_rank()) if on_gpu() else torch.device("cpu")


def bf16_works() -> bool:
    """Whether there is a GPU that computes in bfloat16 by itself."""
    return on_gpu() and torch.cuda.get_device_capability() >= (8, 0)


def cpu_has_bf16() -> bool:
    """Whether the CPU multiplies bfloat16 by itself (AVX512-BF16 or AMX); elsewhere bfloat16 is slower than float32 on a CPU."""
    capabilities = torch.cpu.get_capabilities()
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))


def compute_dtype() -> torch.dtype:
    """Fastest number format of matrix products: bf16 on GPUs and CPUs that have it, else fp16 on a GPU and fp32 on a CPU."""
    if on_gpu():
        return torch.bfloat16 if bf16_works() else torch.float16
    return torch.bfloat16 if cpu_has_bf16() else torch.float32


def product_dtype(settings: ModelSettings) -> torch.dtype:
    """Number format of a run's matrix products: the fastest, but on a CPU that of weights whose format is asked for by name."""
    if on_gpu():
        return compute_dtype()
    if settings.dtype != "auto":
        return DTYPES[settings.dtype]
    return torch.float32 if settings.path == BUILTIN_TINY else compute_dtype()  # matrices so small are faster in fp32


def weight_dtype(settings: ModelSettings) -> torch.dtype:
    """Number format of the weights: as asked, else fp32 for full fine-tuning, whose updates would vanish in bf16."""
    if settings.dtype != "auto":
        return DTYPES[settings.dtype]
    return torch.float32 if settings.tuning == "full" else product_dtype(settings)


def dtype_name(dtype: torch.dtype) -> str:
    """The name as in the settings, such as "bfloat16"."""
    return str(dtype).removeprefix("torch.")


def peak_memory_gib() -> float:
    """Most memory used so far in GiB: of the GPU's allocator, or of the process on a CPU."""
    if on_gpu():
        return torch.cuda.max_memory_allocated() / 2**30
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib / 2**20
