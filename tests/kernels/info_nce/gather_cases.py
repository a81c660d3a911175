"""What a process of the tests of `gather` does: its own rows against the same problem in one process."""

import itertools
import re
from datetime import timedelta

import torch
import torch.distributed as dist
from alignx_kernels import info_nce_loss
from truth import check_against_truth

D, TEMPERATURE = 6, 0.2
NAMES = ("loss", "queries", "keys", "temperature")
COUNTS = {
    2: [[(4, 4), (4, 4)], [(5, 9), (3, 3)], [(0, 2), (6, 7)]],
    4: [[(3, 3)] * 4, [(5, 9), (3, 3), (0, 0), (7, 12)]],
}
"""Queries and keys of each process."""


def pieces(counts, seed=0):
    """Queries, keys and ids of every process in fp64, the same in every process."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for n, m in counts:
        queries, keys = (torch.randn(rows, D, generator=generator, dtype=torch.float64) for rows in (n, m))
        keys[:n] += queries
        made.append((queries, keys, *(torch.randint(6, (rows,), generator=generator) for rows in (n, m))))
    return made


def together(parts):
    """The rows of one process that holds all: queries, then keys and ids alike, positives before further negatives."""
    sizes = [len(queries) for queries, *_ in parts]
    positives_first = [[part[i][:n] for part, n in zip(parts, sizes, strict=True)] for i in (1, 3)]
    further = [[part[i][n:] for part, n in zip(parts, sizes, strict=True)] for i in (1, 3)]
    keys, key_ids = (torch.cat([*first, *then]) for first, then in zip(positives_first, further, strict=True))
    return torch.cat([part[0] for part in parts]), keys, torch.cat([part[2] for part in parts]), key_ids


def rows_of_process(values, rank, counts, is_keys):
    """From rows in the order of `together`, those of one process in its own order."""
    values, ns = values.tolist(), [n for n, _ in counts]
    start = sum(ns[:rank])
    rows = values[start : start + ns[rank]]
    if is_keys:
        further = [m - n for n, m in counts]
        start = sum(ns) + sum(further[:rank])
        rows = rows + values[start : start + further[rank]]
    return torch.tensor(rows, dtype=torch.float64).view(-1, D)


def whole(counts, given_dtype, dtype, cotangents, symmetric, ids, reduction):
    """Loss and gradients of one process in `dtype`, for the sum of what the processes call backward on."""
    queries, keys, query_ids, key_ids = together(pieces(counts))
    given = [side.to(given_dtype).to(dtype).requires_grad_() for side in (queries, keys)]
    temperature = torch.tensor(TEMPERATURE, dtype=torch.promote_types(dtype, torch.float32), requires_grad=True)
    masking = {"query_ids": query_ids, "key_ids": key_ids} if ids else {}
    options = {"symmetric": symmetric, "reduction": reduction, "impl": "reference"}
    loss = info_nce_loss(*given, temperature=temperature, **options, **masking)
    cotangent = torch.cat(cotangents) if reduction == "none" else sum(cotangents)
    return loss.detach(), *torch.autograd.grad(loss, [*given, temperature], cotangent.to(loss.dtype))


def check_case(rank, counts, dtype, symmetric, ids, reduction, impl, group):
    """Loss, gradients at the own rows, and the temperature's summed over the processes, against fp64 in one process."""
    generator = torch.Generator().manual_seed(1)
    cotangents = [torch.randn((n,) if reduction == "none" else (), generator=generator).double() + 2 for n, _ in counts]
    truth, eager = (whole(counts, dtype, kind, cotangents, symmetric, ids, reduction) for kind in (torch.float64, dtype))
    queries, keys, query_ids, key_ids = pieces(counts)[rank]
    given = [queries.to(dtype).requires_grad_(), keys.to(dtype).requires_grad_()]
    temperature = torch.tensor(TEMPERATURE, dtype=truth[3].dtype if dtype == torch.float64 else torch.float32, requires_grad=True)
    masking = {"query_ids": query_ids.int(), "key_ids": key_ids} if ids else {}
    options = {"symmetric": symmetric, "reduction": reduction, "impl": impl, "gather": group}
    loss = info_nce_loss(*given, temperature=temperature, **options, **masking)
    loss.backward(cotangents[rank].to(loss.dtype))
    dist.all_reduce(temperature.grad)
    ours = (loss.detach(), given[0].grad, given[1].grad, temperature.grad)

    def own(results):
        start = sum(n for n, _ in counts[:rank])
        loss = results[0][start : start + counts[rank][0]] if reduction == "none" else results[0]
        queries, keys = (
            rows_of_process(side, rank, counts, is_keys) for side, is_keys in zip(results[1:3], (False, True), strict=True)
        )
        return [loss, queries, keys, results[3]]

    epsilon = 1e-12 if dtype == torch.float64 else len(counts) * torch.finfo(dtype).eps
    compared = [(name, *values) for name, *values in zip(NAMES, own(truth), own(eager), ours, strict=True) if values[0].numel()]
    for name, exact, same_dtype, got in compared:
        assert got.shape == exact.shape, f"{name}: {got.shape} and {exact.shape}"
        if name == "temperature":  # a sum of slopes that cancel, each of order 1 / temperature^2: their rounding stays
            num_slopes = sum(cotangent.abs().sum() for cotangent in cotangents) * (len(truth[1]) if reduction == "sum" else 1)
            rounding = torch.finfo(got.dtype).eps * num_slopes / TEMPERATURE**2
            assert (got - exact).abs() <= (same_dtype - exact).abs() + rounding, f"{name}: {got}, true {exact}"
        else:
            check_against_truth([name], [exact.double()], [same_dtype], [got], epsilon)


def check_frozen(rank, counts):
    """Only the last process wants gradients, at one side at a time: nobody waits for ever, and it gets them."""
    for side, reduction in itertools.product((0, 1), ("mean", "none")):
        queries, keys, *_ = pieces(counts)[rank]
        given = [queries, keys]
        if rank == len(counts) - 1:
            given[side].requires_grad_()
        loss = info_nce_loss(*given, symmetric=True, gather="process_group", reduction=reduction)
        assert loss.requires_grad
        loss.sum().backward()
        assert (given[side].grad is not None and given[side].grad.abs().sum() > 0) == (rank == len(counts) - 1)


def check_no_gradients(rank, counts):
    """Without gradients nothing goes back, and the loss is that of one process."""
    queries, keys, *_ = pieces(counts)[rank]
    expected = info_nce_loss(*together(pieces(counts))[:2], symmetric=True)
    with torch.no_grad():
        loss = info_nce_loss(queries.requires_grad_(), keys, symmetric=True, gather="process_group")
    assert not loss.requires_grad
    torch.testing.assert_close(loss, expected)
    assert not info_nce_loss(queries.detach(), keys, gather="process_group").requires_grad


def check_autocast(rank, counts):
    queries, keys = (side.float() for side in pieces(counts)[rank][:2])
    queries.requires_grad_()
    expected = torch.autograd.grad(info_nce_loss(queries, keys, symmetric=True, gather="process_group"), queries)[0]
    with torch.autocast("cpu", torch.bfloat16):
        loss = info_nce_loss(queries, keys, symmetric=True, gather="process_group")
        assert torch.equal(torch.autograd.grad(loss, queries)[0], expected)


class Towers(torch.nn.Module):
    """Two encoders and the logarithm of a temperature."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.left, self.right = (torch.nn.Linear(D, D, dtype=torch.float64) for _ in range(2))
        self.log_temperature = torch.nn.Parameter(torch.tensor(-1.5, dtype=torch.float64))

    def forward(self, queries, keys):
        return self.left(queries), self.right(keys), self.log_temperature.exp()


def check_ddp(rank, counts):
    """What DistributedDataParallel averages is the gradient of one process; under "none", with the factor of the docstring."""
    alone, parts = Towers(), pieces(counts)
    n = sum(n for n, _ in counts)
    for symmetric, reduction in itertools.product((False, True), ("mean", "sum", "none")):
        alone.zero_grad()
        queries, keys, temperature = alone(*together(parts)[:2])
        expected = info_nce_loss(queries, keys, temperature=temperature, symmetric=symmetric, reduction=reduction).sum()
        expected.backward()
        model = torch.nn.parallel.DistributedDataParallel(Towers())
        queries, keys, temperature = model(*parts[rank][:2])
        options = {"symmetric": symmetric, "reduction": reduction, "gather": "process_group"}
        loss = info_nce_loss(queries, keys, temperature=temperature, **options)
        if reduction == "none":
            loss = loss.sum() * len(counts)
        else:
            torch.testing.assert_close(loss, expected)
        loss.backward()
        for got, exact in zip(model.parameters(), alone.parameters(), strict=True):
            assert exact.grad.abs().max() > 1e-4
            torch.testing.assert_close(got.grad, exact.grad, msg=f"{reduction} of {n} rows")


def check_refusals(rank, counts):
    """Where one process is wrong, or the processes differ, every process says so and none waits for ever."""
    queries, keys, query_ids, key_ids = (side[:3] for side in pieces([(4, 4)])[0])
    last = rank == len(counts) - 1
    ids = {"query_ids": query_ids, "key_ids": key_ids}
    for other, message in [
        ({"queries_ND": queries[:, :3], "keys_MD": keys[:, :3]}, "alike: process .* has vectors of width 3, process 0 has .* 6"),
        ({"queries_ND": queries.float(), "keys_MD": keys.float()}, "vectors of torch.float32, process 0"),
        ({"symmetric": True}, "symmetric=True, process 0 has symmetric=False"),
        ({"reduction": "sum"}, "reduction='sum', process 0 has reduction='mean'"),
        ({"temperature": 0.3}, "temperature=0.3, process 0 has temperature=0.1"),
        ({"temperature": torch.tensor(0.1)}, "a temperature that is a tensor, process 0"),
        (ids, "has ids, process 0 has no ids"),
        ({"queries_ND": queries[0]}, r"queries_ND has shape \(6,\)" if last else "refused its inputs"),
        ({"queries_ND": None}, "NoneType" if last else "refused its inputs"),
        ({"temperature": torch.tensor(-1.0)}, "temperature is -1.0" if last else "refused its inputs"),
        ({"keys_MD": keys[:1]}, "3 queries and 1 keys" if last else "refused its inputs"),
    ]:
        yield {"queries_ND": queries, "keys_MD": keys, **(other if last else {})}, message
    yield {"queries_ND": queries[:0], "keys_MD": keys}, "No process of the group has a query"


def checks_of(rank, world, impl):
    """Every check of this process, by name; all processes go through them in the same order."""
    for counts, symmetric, ids, reduction in itertools.product(
        COUNTS[world], (False, True), (False, True), ("mean", "sum", "none")
    ):
        dtypes = [torch.float32] if impl == "triton" else [torch.float64, torch.float32]
        dtypes += [torch.bfloat16, torch.float16] if ids and impl != "triton" else []
        for dtype in dtypes:
            arguments = (counts, dtype, symmetric, ids, reduction, impl, "process_group")
            yield str(arguments), lambda arguments=arguments: check_case(rank, *arguments)
    if impl == "triton":
        return
    group, uneven = dist.new_group(list(range(world))), COUNTS[world][1]
    for kind in ("reference", "chunked"):
        yield f"group, {kind}", lambda kind=kind: check_case(rank, uneven, torch.float64, True, True, "mean", kind, group)
    for check in (check_frozen, check_no_gradients, check_autocast, check_ddp):
        yield check.__name__, lambda check=check: check(rank, uneven)
    for arguments, message in check_refusals(rank, uneven):
        yield message, lambda arguments=arguments, message=message: _check_refused(arguments, message)


def _check_refused(arguments, message):
    said = ""
    try:
        info_nce_loss(**arguments, gather="process_group")
    except Exception as error:
        said = str(error)
    assert re.search(message, said), said or "it was accepted"


def run_process(rank, world, folder, impl):
    """All checks in one of `world` processes; one that fails does not hide the others."""
    timeout = timedelta(seconds=120)
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world, timeout=timeout)
    failures = []
    for name, check in checks_of(rank, world, impl):
        try:
            check()
        except AssertionError as error:
            failures.append(f"process {rank}, {name}: {error}")
    dist.destroy_process_group()
    assert not failures, "\n".join(failures)
