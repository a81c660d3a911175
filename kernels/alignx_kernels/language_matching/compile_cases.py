"""Launches of the language-matching kernels for every classifier width of `tiles.PAIRS`, for `compiled`."""

from ..common.compile_case import CompileCase
from . import kernels
from .tiles import PAIRS

_ARGUMENTS = {
    "p_scaled": "*fp32",
    "p_language": "*i64",
    "p_partial": "*fp32",
    "num_sentences": "i32",
    "width": "i32",
    "strip": "i32",
}

CASES = [
    CompileCase(
        f"{kernel.__name__.removesuffix('_kernel')} I={width}", kernel, arguments, {}, table.__getitem__, frozenset({"strip"})
    )
    for kernel, arguments in (
        (kernels.language_pairs_forward_kernel, _ARGUMENTS),
        (kernels.language_pairs_backward_kernel, {"p_grad": "*fp32", **_ARGUMENTS}),
    )
    for width, table in PAIRS.items()
]
