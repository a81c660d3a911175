"""Launches of the span pooling kernels, for `compiled`."""

from ..common.compile_case import CompileCase
from . import kernels
from .tiles import OWNER, POOLING

_SIZES = {"num_tokens": "i32", "width": "i32"}

CASES = [
    CompileCase(
        "span_mean_forward",
        kernels.span_mean_forward_kernel,
        {"p_hidden": "*bf16", "p_spans": "*i64", "p_means": "*bf16", **_SIZES, "stride_t": "i32"},
        {"stride_d": 1},
        POOLING.__getitem__,
    ),
    CompileCase(
        "span_owner",
        kernels.span_owner_kernel,
        {"p_spans": "*i64", "p_owner": "*i64", "num_tokens": "i32"},
        {},
        OWNER.__getitem__,
    ),
    CompileCase(
        "span_mean_backward",
        kernels.span_mean_backward_kernel,
        {"p_grad": "*bf16", "p_spans": "*i64", "p_owner": "*i64", "p_out": "*bf16", **_SIZES, "stride_s": "i32"},
        {"stride_d": 1},
        POOLING.__getitem__,
    ),
]
