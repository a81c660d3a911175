"""`python -m alignx_kernels`: versions, the implementation that would run here and why, and a self-test; exit code 1 if it fails.

`python -m alignx_kernels tune` measures launch settings on the card instead.
"""

import argparse
from importlib import metadata

import torch

from . import self_test, tune
from .common.dispatch import INTERPRETED, choose_implementation, why_not_triton


def main() -> int:
    """Print everything; 0 if all operators pass, else 1."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    print("\n".join(versions(device)))
    print(implementation(device))
    dtypes = [torch.float32] if device.type == "cpu" else [torch.float32, torch.bfloat16]
    outcomes = [outcome for dtype in dtypes for outcome in self_test.run(device, dtype)]
    print(*outcomes, sep="\n")
    failed = sum(not outcome.passed for outcome in outcomes)
    print(f"{failed} of {len(outcomes)} checks FAILED" if failed else f"all {len(outcomes)} checks passed")
    return 1 if failed else 0


def versions(device: torch.device) -> list[str]:
    """One line for each of: this package, PyTorch, Triton, the GPU."""
    packages = [f"{name} {_version(name)}" for name in ("alignx-kernels", "torch", "triton")]
    if device.type == "cpu":
        return [*packages, "GPU none"]
    major, minor = torch.cuda.get_device_capability(device)
    return [*packages, f"GPU {torch.cuda.get_device_name(device)}, compute capability {major}.{minor}"]


def implementation(device: torch.device) -> str:
    """The implementation that impl=None takes for tensors on this device, and why."""
    probe = torch.empty(1, device=device)
    reason = why_not_triton(probe)
    if reason is None:
        because = "the tensors are on a GPU of compute capability 8.0 or later"
        if INTERPRETED:
            because = "TRITON_INTERPRET is set: the kernels run in Triton's interpreter"
    elif device.type == "cpu" and _version("triton") != "not installed":
        because = "there is no CUDA GPU"
    else:
        because = reason.partition(";")[0]
    return f"implementation {choose_implementation(None, probe)}, because {because}"


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def run_command() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m alignx_kernels", description="Versions and a self-test of this package.")
    says = "time both ways to make similarities on this card, and print the line of the table that says which runs when"
    parser.add_argument("command", nargs="?", choices=["tune"], help=says)
    return tune.main() if parser.parse_args().command == "tune" else main()


if __name__ == "__main__":
    raise SystemExit(run_command())
