"""One problem run by one implementation: first checked against fp64, then timed, then its memory taken."""

import dataclasses
import gc
import traceback
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch

from benchmarks import problems as problem_module
from benchmarks.fresh import in_fresh_process
from benchmarks.implementations import Implementation, Run, find
from benchmarks.problems import AUTOCAST, TOLERANCES, Problem, Tensors, cotangent
from benchmarks.rates import Rates
from benchmarks.timing import alternating_ratio, cpu_peak_bytes, gpu_peak_bytes, median_seconds

Row = dict[str, Any]
TRUTH_SECONDS = 30.0
"""Longer truths are taken on a smaller version of the problem (fp64 is slow on consumer cards)."""
LEAST_CPU_INPUT_BYTES = 8 << 20


class Task:
    """An implementation on the inputs of a problem: what is called, and the gradients it leaves."""

    def __init__(self, problem: Problem, implementation: Implementation, device: torch.device) -> None:
        self.problem, self.device = problem, device
        self.inputs = problem.inputs(device)
        self.call: Run = implementation.build(problem)
        self.does_backward = implementation.does_backward
        self.leaves = {name: x.requires_grad_() for name, x in self.inputs.items() if x.is_floating_point()}

    def run(self, **inputs: torch.Tensor) -> torch.Tensor:
        """The call itself, under autocast where the problem asks for it; the backward comes after, as users do it."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.problem.dtype == AUTOCAST):
            return self.call(**inputs)

    @torch.no_grad()
    def forward(self) -> torch.Tensor:
        """The output alone, of inputs that want no gradient: some kernels take gradients as soon as one is wanted."""
        return self.run(**{name: x.detach() for name, x in self.inputs.items()})

    def forward_backward(self) -> torch.Tensor:
        output = self.run(**self.inputs)
        if not self.does_backward:
            output.backward(cotangent(output))
        return output.detach()

    def backward(self) -> Callable[[], object]:
        """The backward alone, of a forward done now."""
        output = self.run(**self.inputs)
        sent = cotangent(output)
        return lambda: torch.autograd.grad(output, list(self.leaves.values()), sent, retain_graph=True)

    def drop_gradients(self) -> None:
        for leaf in self.leaves.values():
            leaf.grad = None

    def gradient_bytes(self) -> int:
        return sum(leaf.grad.nbytes for leaf in self.leaves.values() if leaf.grad is not None)


def measure(problem: Problem, implementation: Implementation, rates: Rates, *, seconds: float) -> Row:
    """A row of results; its `status` is "ok", or says why there are no times."""
    row = row_head(problem, implementation)
    if obstacle := implementation.obstacle(problem, rates.device):
        return row | {"status": "not run", "reason": obstacle}
    try:
        return row | _measured(problem, implementation, rates, seconds)
    except torch.OutOfMemoryError:
        return row | {"status": "out of memory"}
    except Exception as error:  # an implementation may fail in any way
        traceback.print_exc()
        traceback.clear_frames(error.__traceback__)
        return row | {"status": "failed", "reason": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"}
    finally:
        gc.collect()
        if rates.device.type == "cuda":
            torch.cuda.empty_cache()


def _measured(problem: Problem, implementation: Implementation, rates: Rates, seconds: float) -> Row:
    checked = checkable(problem, rates)
    task = Task(checked, implementation, rates.device)
    row: Row = {"errors": errors(task), "checked_at": checked.name}
    if reason := wrong(row["errors"], problem.dtype):
        return row | {"status": "wrong", "reason": reason}
    if checked != problem:
        task = Task(problem, implementation, rates.device)
    for phase in problem.phases:
        run = {"forward": task.forward, "forward+backward": task.forward_backward, "backward": None}[phase] or task.backward()
        times = median_seconds(run, rates.device, seconds=seconds, reset=task.drop_gradients)
        amount, unit = problem.work(phase)
        row[phase] = {
            "ms": times.median * 1e3,
            "fastest_ms": times.fastest * 1e3,
            "slowest_ms": times.slowest * 1e3,
            "repeats": times.repeats,
            "rate": amount / times.median,
            "unit": f"{unit}/s",
            "over_floor": times.median / problem.floor(phase, rates),
        }
    task.drop_gradients()
    if implementation.ours and rates.device.type == "cpu" and problem.family == "info_nce":
        row["over_eager"] = _over_eager(task)
    return row | {"extra_bytes": _extra_bytes(task, implementation), "status": "ok"}


def _over_eager(task: Task) -> float:
    """Time of forward and backward over that of torch eager, both in turn."""
    eager = Task(task.problem, find("info_nce", "torch eager"), task.device)

    def step(one: Task) -> Callable[[], object]:
        return lambda: (one.drop_gradients(), one.forward_backward())

    return alternating_ratio(step(task), step(eager))


def _extra_bytes(task: Task, implementation: Implementation) -> int | None:
    """Peak memory of forward and backward beyond inputs and gradients; None where it would drown in the process's own."""
    if task.device.type == "cuda":
        return gpu_peak_bytes(task.forward_backward) - task.gradient_bytes()
    if sum(x.nbytes for x in task.inputs.values()) < LEAST_CPU_INPUT_BYTES:
        return None
    kind, fields = type(task.problem).__name__, dataclasses.asdict(task.problem)
    return in_fresh_process("benchmarks.measure", "cpu_extra_bytes", kind, fields, implementation.name)


def checkable(problem: Problem, rates: Rates) -> Problem:
    """The problem, or the largest halving of it whose fp64 truth this device computes in reasonable time."""
    while problem.truth_work() / rates.matmul("fp64") > TRUTH_SECONDS and (smaller := problem.smaller()) is not None:
        problem = smaller
    return problem


@lru_cache(maxsize=1)
def truth_of(problem: Problem, device: torch.device) -> Tensors:
    """fp64 output and gradients, kept in CPU memory while one problem's implementations are run."""
    return {name: x.cpu() for name, x in problem.truth(problem.inputs(device)).items()}


def errors(task: Task) -> dict[str, float]:
    """Relative error of the output and of every gradient: norm of the difference over the norm of the truth.

    Raises:
        ValueError: a gradient of the truth is zero, so that comparing proves nothing.
    """
    truth = truth_of(task.problem, task.device)
    output = task.forward_backward()
    found = {"output": output} | {name: leaf.grad for name, leaf in task.leaves.items()}
    result = {}
    for name, exact in truth.items():
        if not exact.norm() > 0:
            raise ValueError(f"The truth of {name} in {task.problem.name} is {exact.norm()}; choose inputs that give it a value.")
        result[name] = torch.nan if found[name] is None else _relative_error(found[name], exact)
    return result


def _relative_error(got: torch.Tensor, exact: torch.Tensor) -> float:
    """|got - exact| / |exact|, where `got` lies, a few rows at a time."""
    pairs = [(got, exact)] if got.dim() == 0 else zip(got.split(4096), exact.split(4096), strict=True)
    squares = [((a.double() - b.to(a.device)).square().sum().item(), b.square().sum().item()) for a, b in pairs]
    return (sum(error for error, _ in squares) / sum(size for _, size in squares)) ** 0.5


def wrong(errors: dict[str, float], dtype: str) -> str | None:
    """Which error is beyond rounding, or None; NaN is."""
    allowed = TOLERANCES[dtype]
    for name, error in errors.items():
        limit = allowed["output" if name == "output" else "gradients"]
        if not error <= limit:
            return f"relative error of {name} is {error:.2g}, above {limit:.2g}"
    return None


def cpu_extra_bytes(problem_type: str, fields: dict[str, Any], implementation_name: str) -> int:
    """Peak memory beyond inputs and gradients; for a fresh process."""
    problem = getattr(problem_module, problem_type)(**fields)
    implementation = find(problem.family, implementation_name)
    smallest = problem
    while (smaller := smallest.smaller()) is not None:
        smallest = smaller
    Task(smallest, implementation, torch.device("cpu")).forward_backward()  # libraries load and threads start here
    task = Task(problem, implementation, torch.device("cpu"))
    return cpu_peak_bytes(task.forward_backward) - task.gradient_bytes()


def row_head(problem: Problem, implementation: Implementation) -> Row:
    """What a row says before anything is measured."""
    return {
        "family": problem.family,
        "problem": problem.name,
        "implementation": implementation.name,
        "sizes": dataclasses.asdict(problem),
    }
