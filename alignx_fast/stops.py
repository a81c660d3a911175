"""Ctrl-C and SIGTERM: one line and exit code 130 at any moment, and a second one ends the process at once."""

import os
import signal
import sys
import threading
from types import FrameType

STOPPED = 130
"""Exit code of a command that was stopped, as shells have it for Ctrl-C."""
KINDS = (signal.SIGINT, signal.SIGTERM)
GO_ON = {
    "train": " `--resume` continues from the last checkpoint.",
    "study": " The same command goes on from there.",
    "prepare": " The same command goes on from there.",
}


class Stop:
    """Within the block, Ctrl-C and SIGTERM raise KeyboardInterrupt; `asked` says that one came, whatever became of the exception."""

    def __init__(self) -> None:
        self.asked = False
        self.before: dict[signal.Signals, object] = {}
        self.hook = sys.unraisablehook

    def __enter__(self) -> "Stop":
        if threading.current_thread() is threading.main_thread():  # no other thread may set handlers
            kinds = [kind for kind in KINDS if signal.getsignal(kind) is not signal.SIG_IGN]  # nohup and `&` ask to ignore them
            self.before = {kind: signal.signal(kind, self._ask) for kind in kinds}
            sys.unraisablehook = self._swallowed
        return self

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        for kind in self.before:
            signal.signal(kind, _end_at_once)
        if _is_importing(frame):  # libraries swallow an exception there, or make another of it; and there is nothing to save
            if os.environ.get("LOCAL_RANK", "0") == "0":  # every process of torchrun has the sentence
                os.write(2, f"alignx-fast: {stopped()}\n".encode())
            os._exit(STOPPED)
        raise KeyboardInterrupt

    def _swallowed(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Python drops an exception that is raised while an object is destroyed: raise this one again, a moment later."""
        if not (self.asked and issubclass(unraisable.exc_type, KeyboardInterrupt)):
            self.hook(unraisable)
            return
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 0.01)

    def __exit__(self, *error: object) -> None:
        if not self.asked:  # else the process is about to end, and a second signal must find no handler that raises
            for kind, handler in self.before.items():
                signal.signal(kind, handler)  # type: ignore[arg-type]
            sys.unraisablehook = self.hook


def stopped() -> str:
    """What is said when a command was stopped, and how to go on."""
    return "Stopped." + GO_ON.get("".join(sys.argv[1:2]), "")


def _end_at_once(*_: object) -> None:
    os._exit(STOPPED)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_globals.get("__name__") == "importlib._bootstrap":
            return True
        frame = frame.f_back
    return False
