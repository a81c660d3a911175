"""Ways into custom operators that cost less host time than torch's own, which matters where a problem is small.

torch 2.13 spends about 50 microseconds on its way through the dispatcher to a Python operator, and 100 more on autograd registered with
one that returns a list. Both stay in place for whoever looks on from there: `torch.compile`, fake tensors, dispatch modes, subclasses.
"""

from collections.abc import Callable

import torch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode


def direct(operator, body: Callable) -> Callable:
    """A function like `operator` that calls its `body` where nobody looks on."""
    return lambda *inputs: operator(*inputs) if watched(inputs) else body(*inputs)


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
            return _no_second_derivative(backward(ctx, cotangent, None))

    InFront.__name__ = InFront.__qualname__ = body.__module__.rpartition(".")[2]  # what profilers show
    return lambda *inputs: operator(*inputs)[0] if torch.compiler.is_compiling() else InFront.apply(*inputs)


def watched(inputs: tuple) -> bool:
    """Whether these are not to be computed with, or not only: compiled, traced, without values, or more than plain tensors."""
    if torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
        return True
    return any(isinstance(value, torch.Tensor) and (type(value) is not torch.Tensor or value.is_meta) for value in inputs)


def _no_second_derivative(gradients: tuple) -> tuple:
    """The gradients, which raise an error when they are differentiated.

    `once_differentiable` does so only where the cotangent requires a gradient, and else gives a second derivative without our part.
    """
    given = [gradient for gradient in gradients if gradient is not None]
    if not torch.is_grad_enabled() or not given:
        return gradients
    refuse = torch._C._functions.DelayedError("this loss has no second derivative", len(given))
    marked = refuse(*(gradient.detach().requires_grad_() for gradient in given))
    following = iter(marked if isinstance(marked, tuple) else (marked,))
    return tuple(None if gradient is None else next(following) for gradient in gradients)
