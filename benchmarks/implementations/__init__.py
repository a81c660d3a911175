"""The registry: every implementation of every family, each registered once beside its settings.

An implementation is built for a problem and then called with the problem's inputs; what it returns is differentiated. A new peer is
one decorated function.
"""

import importlib.metadata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.problems import Problem

Run = Callable[..., torch.Tensor]


def takes_everything(problem: Any, device: torch.device) -> None:
    """No limits."""


@dataclass(frozen=True)
class Implementation:
    """One way to compute a family's output."""

    family: str
    name: str
    build: Callable[[Any], Run]
    """Problem -> function of the problem's inputs, by name."""
    ours: bool = False
    packages: tuple[str, ...] = ()
    """Distributions that must be installed."""
    limits: Callable[[Any, torch.device], str | None] = takes_everything
    """Why it cannot take a problem on a device, or None."""
    does_backward: bool = False
    """Its call sends gradients back by itself."""

    def obstacle(self, problem: Problem, device: torch.device) -> str | None:
        """Why the problem cannot be run, or None."""
        for package in self.packages:
            try:
                importlib.metadata.version(package)
            except importlib.metadata.PackageNotFoundError:
                return f"{package} is not installed"
        return self.limits(problem, device)


REGISTRY: list[Implementation] = []


def implementation(family: str, name: str, **options: Any) -> Callable[[Callable[[Any], Run]], Callable[[Any], Run]]:
    """Register the decorated builder; `options` are the further fields of `Implementation`."""

    def register(build: Callable[[Any], Run]) -> Callable[[Any], Run]:
        REGISTRY.append(Implementation(family, name, build, **options))
        return build

    return register


def needs_cuda(problem: Any, device: torch.device) -> str | None:
    """The limit of everything written in Triton."""
    return None if device.type == "cuda" else "needs a CUDA GPU"


from benchmarks.implementations import info_nce, language_matching, pooled_info_nce, span_mean  # noqa: E402, F401  (they fill the registry)


def implementations(family: str) -> list[Implementation]:
    """All of a family, ours first."""
    return sorted((found for found in REGISTRY if found.family == family), key=lambda found: not found.ours)


def find(family: str, name: str) -> Implementation:
    """One implementation by its name."""
    return next(found for found in REGISTRY if (found.family, found.name) == (family, name))
