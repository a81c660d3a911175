"""The rate of the special-function units: a Triton kernel that does nothing but exponentials, in registers."""

from collections.abc import Callable

import torch
import triton
import triton.language as tl

BLOCK, STEPS, PROGRAMS = 1024, 512, 8192


@triton.jit
def exponential_chain_kernel(p_x, BLOCK: tl.constexpr, STEPS: tl.constexpr):
    o_x = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    b_x = tl.load(p_x + o_x)  # [BLOCK]
    for _ in range(STEPS):
        b_x = tl.exp2(b_x) - 1.0  # stays within (-1, 1) when it starts there
    tl.store(p_x + o_x, b_x)


def exponential_chain(device: torch.device) -> tuple[int, Callable[[], None]]:
    """The number of exponentials, and a function that does them."""
    x = torch.rand(PROGRAMS * BLOCK, device=device)
    return PROGRAMS * BLOCK * STEPS, lambda: exponential_chain_kernel[(PROGRAMS,)](x, BLOCK=BLOCK, STEPS=STEPS)
