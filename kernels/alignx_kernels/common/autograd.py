"""Types shared by the autograd functions of the operators."""

import torch
from torch.autograd.function import FunctionCtx


class Context(FunctionCtx):
    """What autograd passes from forward to backward. A subclass names what its operator adds; none is ever constructed."""

    saved_tensors: tuple[torch.Tensor, ...]
