"""Measures in a process of its own, one for each problem: what breaks there, or hangs, costs one row.

`python -m benchmarks.worker TASK`, run by `Worker`: reads names of implementations from stdin and answers each with one line of JSON. It
keeps the truth of its problem from one implementation to the next. After a failure it is replaced, because an error of CUDA stays in a
process.
"""

import contextlib
import dataclasses
import json
import os
import select
import subprocess
import sys
import time
from typing import Any

import torch

from benchmarks import problems as problem_module
from benchmarks.fresh import ROOT
from benchmarks.implementations import Implementation, find
from benchmarks.measure import Row, measure, row_head
from benchmarks.problems import Problem
from benchmarks.rates import Rates

EXIT_SECONDS = 10.0


class Worker:
    """Runs the cases of one problem after the other, in a new process for every problem and after every failure."""

    def __init__(self, rates: Rates, seconds: float, module: str = "benchmarks.worker") -> None:
        self.rates, self.seconds, self.module = rates, seconds, module
        self.problem: Problem | None = None
        self.process: subprocess.Popen[bytes] | None = None

    def measure(self, problem: Problem, implementation: Implementation, limit: float) -> Row:
        """The row of one case; "failed" too where its process died or gave no answer within `limit` seconds."""
        head = row_head(problem, implementation)
        if obstacle := implementation.obstacle(problem, self.rates.device):
            return head | {"status": "not run", "reason": obstacle}
        if problem != self.problem or self.process is None:
            self._start(problem)
        answer = self._ask(implementation.name, limit)
        if isinstance(answer, str):
            self.close()
            return head | {"status": "failed", "reason": answer}
        self.rates.measured.update(answer["rates"])
        row: Row = answer["row"]
        if row["status"] == "failed":
            self.close()
        return row

    def close(self) -> None:
        """End the process, if there is one."""
        if self.process is None:
            return
        process, self.process = self.process, None
        process.stdin.close()
        try:
            process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _start(self, problem: Problem) -> None:
        self.close()
        self.problem = problem
        task = {
            "device": self.rates.device.type,
            "kind": type(problem).__name__,
            "fields": dataclasses.asdict(problem),
            "seconds": self.seconds,
            "rates": self.rates.measured,
        }
        command = [sys.executable, "-m", self.module, json.dumps(task)]
        self.process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)

    def _ask(self, name: str, limit: float) -> dict[str, Any] | str:
        """The answer, or why there is none."""
        process = self.process
        with contextlib.suppress(BrokenPipeError):  # it is dead, then; the reading below says so
            process.stdin.write(name.encode() + b"\n")
        until, received = time.monotonic() + limit, b""
        while not received.endswith(b"\n"):
            ready, _, _ = select.select([process.stdout], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                process.kill()
                return f"stopped after {limit:.0f} s"
            if not (piece := os.read(process.stdout.fileno(), 1 << 16)):
                return f"its process ended with {_ending(process.wait())}"
            received += piece
        found: dict[str, Any] = json.loads(received)
        return found


def _ending(code: int) -> str:
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def serve(task: dict[str, Any]) -> None:
    """Answer on stdout alone; what libraries print goes to stderr."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    problem: Problem = getattr(problem_module, task["kind"])(**task["fields"])
    rates = Rates(torch.device(task["device"]), task["rates"])
    for line in sys.stdin:
        row = measure(problem, find(problem.family, line.strip()), rates, seconds=task["seconds"])
        print(json.dumps({"row": row, "rates": rates.measured}), file=answers, flush=True)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
