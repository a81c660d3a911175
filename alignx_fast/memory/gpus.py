"""Cards: memory, and the datasheet rates behind the estimate of a step's time."""

import re
from dataclasses import dataclass

from alignx_fast.errors import UserError

GIB = 2**30


@dataclass(frozen=True)
class Gpu:
    """A card by its datasheet."""

    name: str
    gib: int
    tflops: float
    """Dense bf16 matrix products with fp32 accumulation, in 10^12 floating-point operations a second."""
    bandwidth: float
    """Memory bandwidth in 10^9 bytes a second."""


GPUS = (
    Gpu("RTX 4070", 12, 58, 504),
    Gpu("RTX 4080", 16, 97, 717),
    Gpu("RTX 3090", 24, 71, 936),
    Gpu("L4", 24, 121, 300),
    Gpu("RTX 4090", 24, 165, 1008),
    Gpu("RTX 5090", 32, 209, 1792),
    Gpu("A100 40GB", 40, 312, 1555),
    Gpu("L40S", 48, 362, 864),
    Gpu("A100 80GB", 80, 312, 2039),
    Gpu("H100", 80, 989, 3350),
    Gpu("H200", 141, 989, 4800),
)
"""Figures of the makers' datasheets, without sparsity."""

UTILISATION = 0.45
"""Share of the datasheet rate assumed for a whole step, recomputation counted; published QLoRA runs reach 0.37 to 0.67."""


def named(device: str) -> list[Gpu]:
    """The cards, in all their sizes, whose model is a whole word of the device's name: an L40S is no L4."""
    return [gpu for gpu in GPUS if re.search(rf"\b{re.sub(r' [0-9]+GB$', '', gpu.name)}\b", device)]


def representative(gpu_bytes: int, name: str = "") -> Gpu:
    """The card of this name, else the fastest of the largest size that is not above the memory, else the smallest card."""
    fitting = [gpu for gpu in named(name) or GPUS if gpu.gib <= gpu_bytes / GIB * 1.05] or [GPUS[0]]
    return max(fitting, key=lambda gpu: (gpu.gib, gpu.tflops if gpu.gib < 40 else -gpu.tflops))


def parse_memory(text: str) -> int:
    """Bytes of `24GiB`, `24GB` or `24`, which all mean GiB, as cards are sold, or of `24564MiB`, as nvidia-smi says it.

    Raises:
        UserError: not an amount of memory.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:(G|M)I?B?)?\s*", text, flags=re.IGNORECASE)
    if not match or not float(match[1]):
        raise UserError(f"{text!r} is not an amount of GPU memory; write it like 24GiB.")
    return round(float(match[1]) * (GIB >> 10 if (match[2] or "G") in "mM" else GIB))
