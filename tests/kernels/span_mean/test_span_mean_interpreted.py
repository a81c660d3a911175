"""The span pooling kernels in Triton's interpreter, against fp64."""

from itertools import accumulate

import pytest
import torch
from alignx_kernels import span_mean
from alignx_kernels.span_mean import launch
from alignx_kernels.span_mean.api import backward_operator
from hypothesis import given, settings
from hypothesis import strategies as st
from span_problem import SPANS, check, hidden_states


@pytest.mark.parametrize("layout", ["contiguous", "transposed", "sliced"])
@pytest.mark.parametrize(("tokens", "width"), [(62, 1), (65, 37), (70, 700)], ids=["D1", "D37", "D700"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"])
def test_means_and_gradient_match_fp64(tokens, width, layout, dtype):
    spans_S2 = torch.tensor(SPANS, dtype=torch.int32 if layout == "sliced" else torch.int64)
    check(hidden_states(tokens, width, dtype, layout), spans_S2, "triton", epsilon=1e-7)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 20), min_size=2, max_size=12), st.integers(1, 40), st.randoms(use_true_random=False))
def test_any_disjoint_spans(steps, width, random):
    bounds = list(accumulate(steps))
    spans = list(zip(bounds[::2], bounds[1::2], strict=False))
    random.shuffle(spans)
    check(hidden_states(bounds[-1], width, torch.float32), torch.tensor(spans), "triton", epsilon=1e-7)


def test_gradient_is_zero_outside_the_spans_and_takes_strided_cotangents():
    cotangent_SD = torch.randn(1, 9).expand(len(SPANS), 9)
    grad_TD = backward_operator(cotangent_SD, torch.tensor(SPANS), 64, "triton")
    outside = torch.ones(64, dtype=torch.bool)
    for start, end in SPANS:
        outside[start:end] = False
        torch.testing.assert_close(grad_TD[start:end], (cotangent_SD[0] / (end - start)).expand(end - start, 9))
    assert outside.any()
    assert (grad_TD[outside] == 0).all()


def test_nan_stays_in_its_span():
    hidden_TD = torch.randn(64, 5)
    hidden_TD[10, 2] = torch.nan
    wrong = span_mean(hidden_TD, torch.tensor(SPANS), impl="triton").isnan()
    assert wrong[2, 2]
    assert wrong.sum() == 1


def test_no_spans():
    hidden_TD = torch.randn(64, 5, requires_grad=True)
    means_SD = span_mean(hidden_TD, torch.zeros(0, 2, dtype=torch.int64), impl="triton")
    assert means_SD.shape == (0, 5)
    means_SD.sum().backward()
    assert (hidden_TD.grad == 0).all()


def test_bad_spans_on_a_gpu_show_as_nan_and_never_leave_the_tokens():
    # The host never looks at spans on a GPU, so the launchers are called past its checks.
    hidden_TD = torch.randn(8, 4)
    spans_S2 = torch.tensor([(0, 2), (5, 5), (-3, 2), (6, 1 << 40), (1, 3)])
    means_SD = launch.forward(hidden_TD, spans_S2)
    torch.testing.assert_close(means_SD[0], hidden_TD[:2].mean(0))
    assert means_SD[1:4].isnan().all()
    grad_TD = launch.backward(torch.ones(5, 4), spans_S2, 8)
    assert grad_TD[1].isnan().all()
    torch.testing.assert_close(grad_TD[[0, 2]], torch.full((2, 4), 0.5))
    assert (grad_TD[3:] == 0).all()
