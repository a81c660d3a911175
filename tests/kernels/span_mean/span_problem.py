"""Span pooling problems, and the means with their gradient, for the tests of every implementation."""

import torch
from alignx_kernels import span_mean
from truth import check_against_truth

# Unsorted, ragged, longer than a block, touching, a single token; gaps before, between and after.
SPANS = [(40, 57), (3, 4), (4, 29), (57, 60), (61, 62)]


def hidden_states(tokens, width, dtype, layout="contiguous", device="cpu"):
    shape = {"contiguous": (tokens, width), "transposed": (width, tokens), "sliced": (tokens, 2 * width + 3)}[layout]
    hidden = torch.randn(shape, dtype=torch.float64).to(device, dtype)
    return {"contiguous": hidden, "transposed": hidden.T, "sliced": hidden[:, 1 : 2 * width + 1 : 2]}[layout]


def means_and_gradient(hidden_TD, spans_S2, cotangent_SD, impl):
    hidden_TD = hidden_TD.detach().requires_grad_()
    means_SD = span_mean(hidden_TD, spans_S2, impl=impl)
    return means_SD, *torch.autograd.grad(means_SD, hidden_TD, cotangent_SD.to(means_SD.dtype))


def check(hidden_TD, spans_S2, impl, epsilon):
    """Means and gradient of `impl` under a random cotangent, against fp64 and eager."""
    cotangent_SD = hidden_states(len(spans_S2), hidden_TD.shape[1], hidden_TD.dtype, device=hidden_TD.device)
    truth = means_and_gradient(hidden_TD.double(), spans_S2, cotangent_SD, "reference")
    eager = means_and_gradient(hidden_TD, spans_S2, cotangent_SD, "reference")
    ours = means_and_gradient(hidden_TD, spans_S2, cotangent_SD, impl)
    assert ours[0].dtype == ours[1].dtype == hidden_TD.dtype
    check_against_truth(["means", "gradient"], truth, eager, ours, epsilon)
