"""What training costs: floating-point operations of the linear layers, and the energy of the GPU."""

from dataclasses import dataclass
from functools import cache

import torch
from torch import nn

from alignx_fast.hardware import on_gpu
from alignx_fast.models.capture import decoder_layers
from alignx_fast.models.forward import head_module


@dataclass
class Work:
    """Tokens that were sent through the model; a pass that ends at a layer counts the layers it ran."""

    forward: int = 0
    """Tokens times decoder layers, forward."""
    backward: int = 0
    """The same, backward; layers that are computed again for it (checkpointing) count once."""
    head: int = 0
    """Tokens whose logits were made, forward and backward."""


@dataclass(frozen=True)
class Prices:
    """Operations a token costs: 2 a weight forward, 2 backward for the gradient of the input, 2 more where the weight is trained."""

    layer_forward: float
    layer_backward: float
    head: float
    """Forward and backward."""

    @staticmethod
    def of(model: nn.Module) -> "Prices":
        """The prices of a model's linear layers, adapters among them; norms, attention scores and losses are left out."""
        layers = decoder_layers(model)
        forward, backward = _linear(layers)
        return Prices(forward / len(layers), backward / len(layers), sum(_linear(head_module(model))))

    def flops(self, work: Work) -> float:
        """All operations."""
        return work.forward * self.layer_forward + work.backward * self.layer_backward + work.head * self.head


def _linear(module: nn.Module) -> tuple[int, int]:
    """Operations a token, forward and backward, of all linear layers in a module. 4-bit weights lie in another shape than they multiply with."""
    forward = backward = 0
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            weights = layer.in_features * layer.out_features
            forward += 2 * weights
            backward += (4 if layer.weight.requires_grad else 2) * weights
    return forward, backward


def energy_joules() -> float | None:
    """What the GPU has used since its driver was loaded; None without a GPU, nvidia-ml-py, or a counter (before Volta)."""
    handle = _gpu_handle() if on_gpu() else None
    if handle is None:
        return None
    import pynvml

    return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000


@cache
def _gpu_handle() -> object | None:
    """NVML's name for torch's GPU, found by its UUID: the numbers of the two differ where some GPUs are hidden."""
    try:
        import pynvml

        pynvml.nvmlInit()
        handle: object = pynvml.nvmlDeviceGetHandleByUUID(
            f"GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
        )
        pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
    except Exception:  # NVML has its own exceptions, which exist only where it is installed
        return None
    return handle
