"""InfoNCE over the rows of several processes equals one process that holds them all, in loss and gradients."""

import pytest
import torch
import torch.distributed as dist
from alignx_kernels import info_nce_loss
from gather_cases import run_process


def run(world, folder, impl=None):
    torch.multiprocessing.spawn(run_process, (world, str(folder), impl), nprocs=world)


def test_two_processes_equal_one(tmp_path):
    run(2, tmp_path)


@pytest.mark.slow
def test_four_processes_equal_one(tmp_path):
    run(4, tmp_path)


@pytest.mark.slow
def test_two_processes_equal_one_in_the_interpreter(tmp_path, monkeypatch):
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    run(2, tmp_path, "triton")


@pytest.fixture
def group_of_one():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


X = torch.randn(6, 4)


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_a_group_of_one_process_is_that_process(reduction, group_of_one):
    queries, keys = torch.randn(6, 4, requires_grad=True), torch.randn(8, 4, requires_grad=True)
    losses = [
        info_nce_loss(queries, keys, symmetric=True, reduction=reduction, gather=gather) for gather in (None, "process_group")
    ]
    torch.testing.assert_close(*losses)
    gradients = [torch.autograd.grad(loss.sum(), (queries, keys)) for loss in losses]
    torch.testing.assert_close(*gradients)


def test_second_derivatives_are_refused_and_not_wrong(group_of_one):
    queries, keys = torch.randn(6, 4, requires_grad=True), torch.randn(8, 4, requires_grad=True)
    loss = info_nce_loss(queries, keys, gather="process_group")
    for gradient in torch.autograd.grad(loss, (queries, keys), create_graph=True):
        with pytest.raises(RuntimeError, match=r"second derivative|differentiate twice"):
            gradient.square().sum().backward(retain_graph=True)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # dynamo reads it between two graphs
def test_a_compiled_function_calls_it_outside_of_its_graphs(group_of_one):
    queries, keys = torch.randn(6, 4, requires_grad=True), torch.randn(8, 4)

    def step(queries):
        return info_nce_loss(queries * 2, keys, symmetric=True, gather="process_group") * 3

    gradients = [torch.autograd.grad(how(queries), queries) for how in (step, torch.compile(step, backend="eager"))]
    assert gradients[0][0].abs().sum() > 0
    torch.testing.assert_close(*gradients)


def test_fullgraph_is_refused_in_one_sentence(group_of_one):
    compiled = torch.compile(lambda x: info_nce_loss(x, x, gather="process_group"), fullgraph=True, backend="eager")
    with pytest.raises(Exception, match="reads how many rows the other processes have"):
        compiled(X)


def test_without_a_group_it_says_what_to_do():
    with pytest.raises(ValueError, match=r"'process_group'; it needs torch.distributed.init_process_group before"):
        info_nce_loss(X, X, gather="process_group")


@pytest.mark.parametrize("gather", ["processes", True, dist.GroupMember.NON_GROUP_MEMBER])
def test_what_is_no_group_is_refused(gather, group_of_one):
    with pytest.raises(ValueError, match=f"gather is {gather!r}; it must be None, 'process_group', or a process group"):
        info_nce_loss(X, X, gather=gather)
