"""`alignx-fast` many times over as processes that can be killed, without importing torch anew for each.

A server imports everything once and does nothing else; every command is a fork of it.
"""

import json
import os
import subprocess
import sys
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    """Exit code; a signal as its negative number."""
    out: str
    err: str

    @property
    def one_sentence(self) -> bool:
        """Whether it said one line on standard error and no more."""
        return len(self.err.strip().splitlines()) == 1 and "Traceback" not in self.out + self.err


class Commands:
    """The server; use it as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.out, self.err = folder / "stdout", folder / "stderr"
        paths = [str(ROOT), str(ROOT / "kernels"), str(ROOT / "tests")]
        self.server = subprocess.Popen(
            [sys.executable, "-m", "support.commands"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        )

    def __enter__(self) -> "Commands":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait()

    def start(self, *arguments: object, first: str = "") -> int:
        """Start `alignx-fast ARGUMENTS` in a process of its own, after the Python code `first`; returns the number of the process."""
        assert self.server.stdin is not None
        request = {"arguments": [*map(str, arguments)], "first": first, "out": str(self.out), "err": str(self.err)}
        self.server.stdin.write(json.dumps(request) + "\n")
        self.server.stdin.flush()
        return int(self._answer())

    def end(self) -> Ended:
        """Wait for the command that was started."""
        assert self.server.stdin is not None
        self.server.stdin.write("wait\n")
        self.server.stdin.flush()
        code = os.waitstatus_to_exitcode(int(self._answer()))
        return Ended(code, self.out.read_text(errors="replace"), self.err.read_text(errors="replace"))

    def run(self, *arguments: object, first: str = "") -> Ended:
        """Start a command and wait for it."""
        self.start(*arguments, first=first)
        return self.end()

    def _answer(self) -> str:
        assert self.server.stdout is not None
        return self.server.stdout.readline()


def serve() -> None:
    """Fork for every request; answer with the number of the process, and with its status when it has ended."""
    from alignx_fast.process import set_up_process

    set_up_process()
    import alignx_fast.study.run
    import alignx_fast.training.run
    import alignx_fast.verbs.evaluate
    import alignx_fast.verbs.export
    import alignx_fast.verbs.translate  # noqa: F401

    for line in sys.stdin:
        request = json.loads(line)
        pid = os.fork()
        if not pid:
            _command(**request)
        print(pid, flush=True)
        sys.stdin.readline()  # until it is waited for, no other process takes its number
        print(os.waitpid(pid, 0)[1], flush=True)


def _command(arguments: list[str], first: str, out: str, err: str) -> None:
    for number, name in ((0, os.devnull), (1, out), (2, err)):
        os.dup2(os.open(name, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o666), number)
    from alignx_fast.entry import main

    sys.argv, sys.stdin = ["alignx-fast", *arguments], open(0, encoding="utf-8", closefd=False)  # noqa: SIM115
    code: object = 0
    try:
        exec(first, {})
        main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    os._exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    serve()
