"""What this machine has, what will be used of it, and what to install: for `doctor` and for the record of a run."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

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


def versions() -> dict[str, str | None]:
    """Installed version of every package that matters; None where it is missing."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in ("alignx-fast", *PACKAGES):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = None
    return found


def git_state() -> dict[str, Any]:
    """Commit of the source tree this package runs from, and whether it has changes; empty outside of a git checkout."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        return subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True).stdout.strip()

    try:
        if not git("ls-files", "--", "environment.py"):
            return {}
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.CalledProcessError):
        return {}


def machine() -> dict[str, Any]:
    """GPU, driver, CPU and memory."""
    import torch

    found: dict[str, Any] = {
        "system": platform.platform(),
        "cpu_threads": torch.get_num_threads(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "device": "cpu",
    }
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        found |= {
            "device": properties.name,
            "gpu_memory_gib": round(properties.total_memory / 2**30, 1),
            "compute_capability": f"{properties.major}.{properties.minor}",
            "cuda": torch.version.cuda,
            "driver": _driver(),
        }
    return found


def _driver() -> str | None:
    if shutil.which("nvidia-smi") is None:
        return None
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    lines = subprocess.run(query, capture_output=True, text=True, check=False).stdout.splitlines()
    return lines[0].strip() if lines else None


def record(seed: int) -> dict[str, Any]:
    """The environment of a run, as saved in its folder."""
    return {"command": sys.argv, "seed": seed, "versions": versions(), "git": git_state(), "machine": machine()}
