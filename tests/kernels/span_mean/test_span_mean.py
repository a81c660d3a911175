"""Span pooling without a GPU: the chunked implementation, its operators, and the public function."""

import pytest
import torch
from alignx_kernels import span_mean
from alignx_kernels.span_mean.api import forward_operator
from span_problem import SPANS, check, hidden_states, means_and_gradient


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=["fp64", "fp32", "bf16"])
@pytest.mark.parametrize("layout", ["contiguous", "transposed", "sliced"])
def test_chunked_matches_fp64(dtype, layout):
    check(hidden_states(63, 37, dtype, layout), torch.tensor(SPANS), None, epsilon=1e-15 if dtype == torch.float64 else 1e-7)


def test_a_joined_span_is_the_weighted_mean_of_its_parts():
    hidden_TD = hidden_states(40, 7, torch.float64)
    parts = span_mean(hidden_TD, torch.tensor([(2, 9), (9, 30)]))
    whole = span_mean(hidden_TD, torch.tensor([(2, 30)]))
    torch.testing.assert_close((7 * parts[:1] + 21 * parts[1:]) / 28, whole)


def test_gradient_is_zero_outside_the_spans():
    _, grad_TD = means_and_gradient(torch.randn(63, 4), torch.tensor(SPANS), torch.randn(5, 4), None)
    outside = torch.ones(63, dtype=torch.bool)
    for start, end in SPANS:
        outside[start:end] = False
    assert (grad_TD[outside] == 0).all()
    assert (grad_TD[~outside] != 0).all()


def test_operator_registration():
    torch.library.opcheck(forward_operator, (torch.randn(63, 4, requires_grad=True), torch.tensor(SPANS), "chunked"))


def test_compiles_without_graph_breaks():
    hidden_TD, cotangent_SD = torch.randn(63, 4), torch.randn(5, 4)
    compiled = torch.compile(span_mean, fullgraph=True, backend="aot_eager")
    leaf_TD = hidden_TD.clone().requires_grad_()
    means_SD = compiled(leaf_TD, torch.tensor(SPANS))
    result = means_SD, *torch.autograd.grad(means_SD, leaf_TD, cotangent_SD)
    torch.testing.assert_close(result, means_and_gradient(hidden_TD, torch.tensor(SPANS), cotangent_SD, None))


@pytest.mark.parametrize("impl", [None, "reference"])
@pytest.mark.parametrize(
    ("spans", "message"),
    [
        ([(0, 3), (5, 5)], r"spans_S2\[1\] is \(5, 5\); it must satisfy 0 <= start < end <= 9 tokens"),
        ([(-1, 3)], r"spans_S2\[0\] is \(-1, 3\)"),
        ([(4, 10)], r"spans_S2\[0\] is \(4, 10\)"),
        ([(5, 8), (0, 2), (1, 4)], r"spans_S2 holds \(0, 2\) and \(1, 4\), which overlap; spans must be disjoint"),
        ([(1.0, 2.0)], "spans_S2 is torch.float32; it must be int32 or int64"),
        ([(1, 2, 3)], r"spans_S2 has shape \(1, 3\); it must be \[S, 2\]"),
    ],
    ids=["empty", "negative", "beyond", "overlap", "float", "triple"],
)
def test_bad_spans_are_named(spans, message, impl):
    with pytest.raises(ValueError, match=message):
        span_mean(torch.randn(9, 2), torch.tensor(spans), impl=impl)


def test_bad_hidden_states_and_implementations_are_named():
    spans_S2 = torch.tensor([(0, 1)])
    with pytest.raises(ValueError, match=r"hidden_TD has shape \(2, 3, 4\); it must be 2-D"):
        span_mean(torch.randn(2, 3, 4), spans_S2)
    with pytest.raises(ValueError, match=r"hidden_TD is torch.int64; it must be bfloat16"):
        span_mean(torch.ones(2, 3, dtype=torch.int64), spans_S2)
    with pytest.raises(ValueError, match="impl='triton' cannot run here: a tensor is on cpu; move the tensors to a CUDA device"):
        span_mean(torch.randn(2, 3), spans_S2, impl="triton")
