"""The one rule of accuracy: our error against fp64 is at most that of eager PyTorch in the same dtypes, plus a stated epsilon."""

import torch


def check_against_truth(names, truth, eager, ours, epsilon):
    """Compare tuples of tensors; errors and `epsilon` are relative to the largest true value of each tensor.

    Half an ulp of the output's own dtype is always allowed: it is the rounding that any implementation makes last.
    """
    for name, true, same_dtype, got in zip(names, truth, eager, ours, strict=True):
        assert true.dtype == torch.float64, f"{name}: the truth is {true.dtype}"
        scale = true.abs().max()
        assert scale > 1e-4, f"{name} is about zero ({scale}), so that the comparison proves nothing"
        error = (got.double() - true).abs().max()
        eager_error = (same_dtype.double() - true).abs().max()
        allowed = eager_error + (epsilon + torch.finfo(got.dtype).eps / 2) * scale
        assert error <= allowed, f"{name}: error {error:.2e}, eager {eager_error:.2e}, allowed {allowed:.2e}, scale {scale:.2e}"
