"""Pooling and InfoNCE in one operator: the same as one after the other."""

import pytest
import torch
from alignx_kernels import info_nce_loss, pooled_info_nce_loss, span_mean

N, M, D, T = 5, 7, 6, 60
# Disjoint, ragged, out of order, with tokens that belong to no span.
STARTS = torch.tensor([0, 41, 7, 13, 18, 30, 2, 24, 50, 36, 9, 46])
SPANS = torch.stack([STARTS, STARTS + torch.tensor([2, 4, 2, 4, 5, 3, 4, 6, 1, 5, 3, 3])], 1)
SOURCES, TARGETS = SPANS[:N], SPANS[N:]
IDS = {"query_ids": torch.arange(N) % 3, "key_ids": torch.arange(M) % 3}


def run(function, hidden, cotangent, dtype=torch.float64):
    hidden = hidden.to(dtype).detach().requires_grad_()
    temperature = torch.tensor(0.2, dtype=torch.promote_types(dtype, torch.float32), requires_grad=True)
    loss = function(hidden, temperature)
    return loss, *torch.autograd.grad(loss, (hidden, temperature), cotangent.to(loss.dtype))


def separate(**options):
    def loss(hidden, temperature):
        means = span_mean(hidden, SPANS, impl="reference")
        return info_nce_loss(means[:N], means[N:], temperature=temperature, impl="reference", **options)

    return loss


def pooled(impl=None, **options):
    return lambda hidden, temperature: pooled_info_nce_loss(
        hidden, SOURCES, TARGETS, temperature=temperature, impl=impl, **options
    )


@pytest.mark.parametrize("ids", [{}, IDS], ids=["plain", "ids"])
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("impl", ["chunked", "reference"])
def test_equals_pooling_then_loss(impl, symmetric, reduction, ids):
    options = {"symmetric": symmetric, "reduction": reduction, **ids}
    hidden, cotangent = torch.randn(T, D), torch.randn(N if reduction == "none" else ())
    expected = run(separate(**options), hidden, cotangent)
    actual = run(pooled(impl, **options), hidden, cotangent)
    assert all(gradient.abs().sum() > 0 for gradient in actual[1:])
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("symmetric", [False, True])
def test_keeps_only_what_the_backward_needs(symmetric):
    hidden = torch.randn(T, D, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor.shape) or tensor, lambda tensor: tensor):
        pooled_info_nce_loss(hidden, SOURCES, TARGETS, symmetric=symmetric)
    assert hidden.shape not in kept
    assert sum(shape.numel() for shape in kept) <= (N + M) * D + 3 * (N + M) + 2 * N + 1


def test_frozen_hidden_states_and_no_grad():
    temperature = torch.tensor(0.1, requires_grad=True)
    pooled_info_nce_loss(torch.randn(T, D), SOURCES, TARGETS, temperature=temperature).backward()
    assert temperature.grad != 0
    with torch.no_grad():
        assert not pooled_info_nce_loss(torch.randn(T, D, requires_grad=True), SOURCES, TARGETS).requires_grad


@pytest.mark.parametrize("symmetric", [False, True])
def test_compiles_to_the_same(symmetric):
    def step(hidden):
        return pooled_info_nce_loss(hidden * 2, SOURCES, TARGETS, symmetric=symmetric, **IDS)

    hidden = torch.randn(T, D, requires_grad=True)
    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    expected, actual = (torch.autograd.grad(function(hidden), hidden)[0] for function in (step, compiled))
    assert actual.abs().sum() > 0
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"source_spans_N2": SOURCES[:0]}, "0 queries"),
        ({"target_spans_M2": TARGETS[:3]}, "5 queries and 3 keys"),
        ({"source_spans_N2": SOURCES[:, 0]}, "source_spans_N2 has shape"),
        ({"target_spans_M2": SOURCES}, "overlap"),
        ({"target_spans_M2": SOURCES, "impl": "reference"}, "overlap"),
        ({"temperature": torch.tensor(-1.0)}, "temperature is -1.0"),
        ({"temperature": -1.0}, "temperature is -1.0"),
        ({"query_ids": torch.arange(N)}, "both or neither"),
        ({"impl": "fast"}, "impl is 'fast'"),
    ],
)
def test_mistakes_are_refused(arguments, message):
    given = {"hidden_TD": torch.randn(T, D), "source_spans_N2": SOURCES, "target_spans_M2": TARGETS, **arguments}
    with pytest.raises(ValueError, match=message):
        pooled_info_nce_loss(**given)
