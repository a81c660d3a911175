"""Problems for the tests of InfoNCE, and the comparison every implementation must pass."""

from dataclasses import dataclass

import torch
from alignx_kernels import info_nce_loss


@dataclass(frozen=True)
class Case:
    """One call; N, M, D are ragged on purpose. `ids` is the number of distinct texts, 0 for no masking."""

    n: int
    m: int
    d: int
    symmetric: bool = False
    ids: int = 0
    reduction: str = "mean"
    temperature: float = 0.1

    def __str__(self):
        direction = "both" if self.symmetric else "one"
        return f"{self.n}x{self.m}x{self.d}-{direction}-{self.reduction}-ids{self.ids}-tau{self.temperature}"


SHAPES = ((1, 1, 1), (37, 37, 19), (130, 203, 70))
CASES = [
    *(Case(*shape, symmetric, ids) for shape in SHAPES for symmetric in (False, True) for ids in (0, 20)),
    *(Case(*SHAPES[2], symmetric, 40, reduction) for symmetric in (False, True) for reduction in ("sum", "none")),
    *(Case(*SHAPES[2], symmetric, 40, temperature=0.01) for symmetric in (False, True)),
    *(Case(*SHAPES[1], symmetric, 9, "none", temperature=1.0) for symmetric in (False, True)),
]
# What an implementation may lose beyond what eager code in the same dtype loses: relative to the largest entry of the truth.
SLACK = 1e-6


def tensors(case: Case, dtype: torch.dtype, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Vectors of several lengths with a zero vector on each side, ids, and a random cotangent."""
    queries = torch.randn(case.n, case.d) * torch.rand(case.n, 1).mul(3).exp()
    keys = torch.randn(case.m, case.d)
    if case.n > 5:
        keys[: case.n] += 0.3 * queries
        queries[3], keys[5] = 0, 0
    made = {"queries": queries.to(dtype), "keys": keys.to(dtype)}
    made["cotangent"] = torch.randn(case.n if case.reduction == "none" else ())
    if case.ids:
        made |= {"query_ids": torch.randint(case.ids, (case.n,)), "key_ids": torch.randint(case.ids, (case.m,))}
    return {name: tensor.to(device) for name, tensor in made.items()}


def run(case: Case, given: dict[str, torch.Tensor], dtype: torch.dtype, impl: str) -> dict[str, torch.Tensor]:
    """The loss and all gradients in fp64, computed in `dtype`."""
    queries, keys = (given[name].to(dtype).clone().requires_grad_() for name in ("queries", "keys"))
    wide = torch.promote_types(dtype, torch.float32)
    temperature = torch.tensor(case.temperature, dtype=wide, device=queries.device, requires_grad=True)
    loss = info_nce_loss(
        queries,
        keys,
        temperature=temperature,
        symmetric=case.symmetric,
        query_ids=given.get("query_ids"),
        key_ids=given.get("key_ids"),
        reduction=case.reduction,
        impl=impl,
    )
    loss.backward(given["cotangent"].to(loss.dtype))
    results = {"loss": loss, "queries": queries.grad, "keys": keys.grad, "temperature": temperature.grad}
    return {name: tensor.detach().double() for name, tensor in results.items()}


def assert_as_exact_as_eager(case: Case, dtype: torch.dtype, impl: str, device: str = "cpu") -> None:
    """Against fp64, `impl` in `dtype` errs no more than the literal formulas in `dtype` do, plus `SLACK`."""
    given = tensors(case, dtype, device)
    truth, eager, ours = (run(case, given, *how) for how in ((torch.float64, "reference"), (dtype, "reference"), (dtype, impl)))
    for name, exact in truth.items():
        scale = exact.abs().max()
        if case.m > 1:
            assert scale > 0, f"{name} is zero everywhere, which proves nothing"
        # The temperature's gradient is a sum of slopes that cancel, each of order 1 / temperature^2: their rounding stays. With one
        # key everything is exactly zero, and rounding is all there is.
        rows = 1 if case.reduction == "mean" else case.n**0.5
        floor = 1e-7 * rows / case.temperature**2 if case.m == 1 or name == "temperature" else 1e-12
        allowed = (eager[name] - exact).abs().max() + SLACK * scale + floor
        error = (ours[name] - exact).abs().max()
        assert error <= allowed, f"{name}: error {error:.3g}, allowed {allowed:.3g}, scale {scale:.3g}"
