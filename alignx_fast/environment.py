"""What this machine has, what will be used of it, and what to install: for `doctor` and for the record of a run."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NotRequired, TypedDict

PACKAGES = (
    "torch",
    "triton",
    "transformers",
    "peft",
    "accelerate",
    "bitsandbytes",
    "datasets",
    "liger-kernel",
    "flash-attn",
    "sacrebleu",
)


class Machine(TypedDict):
    """Hardware and driver; the later keys only where there is a GPU."""

    system: str
    cpu_threads: int
    memory_gib: float
    device: str
    gpu_memory_gib: NotRequired[float]
    compute_capability: NotRequired[str]
    cuda: NotRequired[str | None]
    driver: NotRequired[str | None]


class GitState(TypedDict, total=False):
    """Commit of the source tree and whether it has changes; empty outside of a git checkout."""

    commit: str
    dirty: bool


class Record(TypedDict):
    """The environment of a run."""

    command: list[str]
    seed: int
    versions: dict[str, str | None]
    git: GitState
    machine: Machine


def versions() -> dict[str, str | None]:
    """Installed version of every package that matters; None where it is missing."""
    installed: dict[str, str | None] = {"python": platform.python_version()}
    for package in ("alignx-fast", "alignx-kernels", *PACKAGES):
        try:
            installed[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            installed[package] = None
    return installed


def git_state() -> GitState:
    """The state of the source tree that this package runs from."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files", "--", "environment.py"):
            return {}
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {}


def machine() -> Machine:
    """GPU, driver, CPU and memory."""
    import torch

    from alignx_fast.hardware import on_gpu

    state: Machine = {
        "system": platform.platform(),
        "cpu_threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "device": "cpu",
    }
    if on_gpu():
        properties = torch.cuda.get_device_properties(0)
        state |= {
            "device": properties.name,
            "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
            "compute_capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "driver": _driver(),
        }
    return state


def _driver() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
    return lines[0].strip() if lines else None


def record(seed: int) -> Record:
    """The environment of this run, as saved in its folder."""
    return {"command": sys.argv, "seed": seed, "versions": versions(), "git": git_state(), "machine": machine()}
