"""Everything that leans on APIs which PyTorch and Triton do not document; nothing else in the package may.

| what | from | why |
|---|---|---|
| `is_in_torch_dispatch_mode` | `torch.utils._python_dispatch` | no public function tells whether a dispatch mode is active |
| `DelayedError` | `torch._C._functions` | an autograd node that raises only when it is differentiated; `once_differentiable` uses the same |
| `GPUTarget`, `ASTSource`, `triton.compile` | `triton.backends`, `triton.compiler` | the public way to compile a kernel needs a GPU |
| `knobs.nvidia.cuobjdump` | `triton.knobs` | the path of the tool that comes with Triton and reads register counts |

Run with torch 2.13.0 and Triton 3.9.0; compilation with Triton 3.6.0 too. The files of torch 2.10.0 hold both names (read, not run).
Triton is imported inside the functions that need it: macOS and Windows lack it.
"""

import subprocess
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, cast

import torch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode


def dispatcher_must_see(inputs: Iterable[object]) -> bool:
    """Whether a call with these inputs must go through PyTorch's dispatcher, as a custom operator.

    It must under `torch.compile`, a dispatch mode (fake tensors are one), and with meta tensors or subclasses of Tensor. Elsewhere
    the Python function behind the operator is called directly, which saves the host about 50 microseconds (torch 2.13).
    """
    if torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
        return True
    return any(isinstance(value, torch.Tensor) and (type(value) is not torch.Tensor or value.is_meta) for value in inputs)


def refuse_second_derivative(gradients: Sequence[torch.Tensor | None]) -> tuple[torch.Tensor | None, ...]:
    """The gradients, which raise a RuntimeError when they are differentiated themselves.

    `torch.autograd.function.once_differentiable` is not enough: where the cotangent needs no gradient it lets a second derivative
    pass that lacks this loss's part.
    """
    present = [gradient for gradient in gradients if gradient is not None]
    if not torch.is_grad_enabled() or not present:
        return tuple(gradients)
    refuse = torch._C._functions.DelayedError("this loss has no second derivative", len(present))
    marked = refuse(*(gradient.detach().requires_grad_() for gradient in present))
    following = iter(marked if isinstance(marked, tuple) else (marked,))
    return tuple(None if gradient is None else next(following) for gradient in gradients)


class Kernel(Protocol):
    """What the package uses of a `triton.jit` function, besides launching it."""

    __name__: str
    arg_names: list[str]


class CompilerMetadata(Protocol):
    shared: int  # bytes of shared memory a block


class CompiledKernel(Protocol):
    """What the package reads of a kernel that Triton compiled: `asm["ptx"]` is text, `asm["cubin"]` bytes."""

    asm: Mapping[str, str | bytes]
    metadata: CompilerMetadata


def compile_without_gpu(
    kernel: Kernel,
    signature: Mapping[str, str],
    constants: Mapping[str, object],
    aligned: Iterable[str],
    architecture: int,
    options: Mapping[str, object],
) -> CompiledKernel:
    """Compile a kernel as a launch on `architecture` would; Triton's disk cache answers the second time.

    signature: argument name -> Triton type, or "constexpr" for those in `constants`. aligned: pointers and integers that are
    multiples of 16, which a launch finds out from the values.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    index = kernel.arg_names.index
    source = ASTSource(
        kernel,
        dict(signature),
        constexprs={(index(name),): value for name, value in constants.items()},
        attrs={(index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    return cast(CompiledKernel, triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=dict(options)))


def resource_usage_text(path_of_cubin: str) -> str:
    """What NVIDIA's cuobjdump, which comes with Triton, prints about the registers and stack of a compiled kernel."""
    import triton

    command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", path_of_cubin]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout
