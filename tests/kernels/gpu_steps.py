"""What a forward and backward pass on a GPU must hold, whichever the operator."""

import torch


def assert_same_bits_every_time(step):
    first = step()
    for _ in range(5):
        for a, b in zip(first, step(), strict=True):
            assert torch.equal(a, b)


def assert_no_host_synchronisation_and_cuda_graphs(step):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):  # warm up: compilation and workspaces
        expected = step()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step()
    for result in captured:
        result.fill_(torch.nan)
    graph.replay()
    for a, b in zip(expected, captured, strict=True):
        assert torch.equal(a, b)


def assert_compiles_as_one_graph(step, inputs, last):
    """Loss and gradients out of one graph, without a break, are those of ordinary calls."""
    inputs = [x.requires_grad_() for x in inputs]
    torch._dynamo.reset()
    losses = [function(*inputs, last) for function in (step, torch.compile(step, fullgraph=True))]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-5)
    for compiled, ordinary in zip(*(torch.autograd.grad(loss, inputs) for loss in losses[::-1]), strict=True):
        assert ordinary.norm() > 0
        # A product in another tile order may round a value of bf16 the other way.
        assert (compiled.double() - ordinary.double()).norm() <= 2e-3 * ordinary.double().norm()
