"""Tasks as processes: some at a time, each with a log file of its own, stopped together."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from alignx_fast.study.tasks import Step, Task

log = logging.getLogger(__name__)

SECONDS_BETWEEN_LOOKS = 0.1
PR_SET_PDEATHSIG = 1
"""Linux: the signal that a process gets when its parent dies."""


@dataclass(frozen=True)
class Failure:
    """A task that ended without its result."""

    task: Task
    reason: str
    """The last line that it printed."""


@dataclass
class _Running:
    task: Task
    step: Step
    process: subprocess.Popen[bytes]
    began: float = field(default_factory=time.monotonic)
    seconds: dict[Step, float] = field(default_factory=dict)


class Runner:
    """Does tasks, at most `jobs` at a time."""

    def __init__(self, tasks: Sequence[Task], jobs: int) -> None:
        self.waiting = [task for task in tasks if task.next_step() is not None]
        self.total, self.jobs = len(tasks), jobs
        self.already = len(tasks) - len(self.waiting)
        self.running: list[_Running] = []
        self.failures: list[Failure] = []
        self.finished = 0
        self.began = time.monotonic()

    def run(self) -> list[Failure]:
        """Do everything that is not done yet; a task that fails holds up none of the others.

        Raises:
            KeyboardInterrupt: Ctrl-C or SIGTERM, once every process has ended.
        """
        if self.already:
            log.info("%d of %d are finished already.", self.already, self.total)
        with _terminated_as_interrupted():
            try:
                while self.waiting or self.running:
                    self._start()
                    time.sleep(SECONDS_BETWEEN_LOOKS)
                    self._look()
            except KeyboardInterrupt:
                self._stop()
                raise
        return self.failures

    def _start(self) -> None:
        while len(self.running) < self.jobs:
            unfinished = {
                task.settings.output for task in (*self.waiting, *(each.task for each in self.running)) if task.settings
            }
            task = next((task for task in self.waiting if not task.waits(unfinished)), None)
            if task is None:
                return
            self.waiting.remove(task)
            self._begin(task, {})

    def _begin(self, task: Task, seconds: dict[Step, float]) -> None:
        step = task.next_step()
        assert step is not None  # else it would not have been waiting
        command = task.command(step)
        task.log_file.parent.mkdir(parents=True, exist_ok=True)
        with task.log_file.open("ab") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(self.jobs),
                process_group=0,  # so that Ctrl-C reaches it once, from here
                preexec_fn=_end_with_parent,
            )
        self.running.append(_Running(task, step, process, seconds=seconds))

    def _look(self) -> None:
        for each in [each for each in self.running if each.process.poll() is not None]:
            self.running.remove(each)
            seconds = each.seconds | {each.step: time.monotonic() - each.began}
            following = each.task.next_step()
            if each.process.returncode or following is each.step:
                self.failures.append(Failure(each.task, _last_line(each.task)))
                log.error("%s failed (%s): %s", each.task.title, each.task.log_file, self.failures[-1].reason)
            elif following is not None:
                self._begin(each.task, seconds)
            else:
                self.finished += 1
                log.info("%s", self._progress(each.task, seconds))

    def _progress(self, task: Task, seconds: dict[Step, float]) -> str:
        names = {Step.TRAIN: "trained", Step.SCORE: "scored"}
        parts = [f"{names[step]} in {_clock(spent)}" for step, spent in seconds.items()]
        ended = self.finished + len(self.failures)
        left = len(self.waiting) + len(self.running)
        ahead = f"; about {_clock((time.monotonic() - self.began) / ended * left)} left" if left else ""
        return f"[{self.already + ended}/{self.total}] {task.title}: {', '.join(parts)}{ahead}"

    def _stop(self) -> None:
        """Let every process save what it has, and wait for that; asked a second time, end them at once."""
        if self.running:
            log.warning("Stopping: what is trained saves a checkpoint at the end of its step; once more stops at once.")
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self._signal(signal.SIGTERM)  # one started in the background of a script ignores SIGINT
            for each in self.running:
                each.process.wait()
        except KeyboardInterrupt:
            self._signal(signal.SIGKILL)
            for each in self.running:
                each.process.wait()

    def _signal(self, kind: signal.Signals) -> None:
        for each in self.running:
            if each.process.poll() is None:
                os.killpg(each.process.pid, kind)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _end_with_parent() -> None:
    """In the new process: die when the study does, however it ends, so that none goes on unseen."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _environment(jobs: int) -> dict[str, str]:
    """The threads of this process divided by the jobs."""
    return os.environ | {"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // jobs)), "PYTHONUNBUFFERED": "1"}


def _last_line(task: Task) -> str:
    lines = task.log_file.read_text(encoding="utf-8", errors="replace").splitlines() if task.log_file.exists() else []
    return next((line for line in reversed(lines) if line.strip()), "it printed nothing").removeprefix("alignx-fast: ")


def _clock(seconds: float) -> str:
    """Hours only where there are any."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}" if minutes >= 60 else f"{minutes}:{rest:02d}"
