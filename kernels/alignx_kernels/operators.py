"""Ways into custom operators that cost less host time than torch's own, which matters where a problem is small.

torch 2.13 spends about 50 microseconds on its way through the dispatcher to a Python operator, and 100 more on autograd registered with
one that returns a list. Both stay in place for whoever looks on from there: `torch.compile`, fake tensors, dispatch modes, subclasses.
"""

from collections.abc import Callable

import torch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode


def direct(operator, body: Callable) -> Callable:
    """A function like `operator` that calls its `body` where nobody looks on."""
    return lambda *inputs: operator(*inputs) if _watched(inputs) else body(*inputs)


def differentiable(operator, body: Callable, backward: Callable, setup_context: Callable) -> Callable[..., torch.Tensor]:
    """A function of the inputs of `operator`, which returns (result, kept tensors), that returns the result, with its gradient.

    `backward` and `setup_context` are those of `register_autograd`. `torch.compile` refuses an `autograd.Function` when one tensor is
    passed twice, as in `query_ids=ids, key_ids=ids`; elsewhere one stands in front of the operator.
    """
    operator.register_autograd(backward, setup_context=setup_context)
    run = direct(operator, body)

    class InFront(torch.autograd.Function):
        @staticmethod
        def forward(ctx, *inputs):
            output = run(*inputs)
            setup_context(ctx, inputs, output)
            return output[0]

        @staticmethod
        def backward(ctx, cotangent):
            return backward(ctx, cotangent, None)

    return lambda *inputs: operator(*inputs)[0] if torch.compiler.is_compiling() else InFront.apply(*inputs)


def _watched(inputs: tuple) -> bool:
    if torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
        return True
    return any(isinstance(value, torch.Tensor) and type(value) is not torch.Tensor for value in inputs)
