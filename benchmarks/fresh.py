"""Call a function of the benchmarks in a process of its own, for clean memory and unpatched libraries.

`python -m benchmarks.fresh MODULE FUNCTION JSON_ARGUMENTS`, run by `in_fresh_process`; the result is the last line of the output.
"""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


class FreshProcessError(RuntimeError):
    """The process failed or was stopped; its message is the exception's first line, or the last line it wrote to stderr."""


def in_fresh_process(module: str, function: str, *arguments: Any, timeout: float = 600) -> Any:
    """The function's JSON-able result, computed from JSON-able arguments."""
    command = [sys.executable, "-m", "benchmarks.fresh", module, function, json.dumps(arguments)]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise FreshProcessError(f"stopped after {timeout:.0f} s") from None
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or [f"exit {done.returncode}"]
        # CUDA's messages go on for lines, and libraries may say something after the traceback.
        raised = [line for line in lines if re.match(r"[\w.]+(Error|Exception)\b", line)]
        raise FreshProcessError((raised or lines)[-1])
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    _, module_name, function_name, packed = sys.argv
    result = getattr(importlib.import_module(module_name), function_name)(*json.loads(packed))
    print("\n" + json.dumps(result))
