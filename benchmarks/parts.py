"""The parts of a run on a GPU (`gpu.sh`): which cases each takes, and what stands for them in a dry run on a CPU."""

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

from benchmarks.problems import InfoNce, LanguageMatching, PooledInfoNce, SpanMean

SMALL = 2048
"""Up to so many queries the host's time decides, and not the GPU's."""
CCE = "cut-cross-entropy"
"""In a part of its own: its locks can hang."""


def _large(problem: Any, implementation: str) -> bool:
    return isinstance(problem, InfoNce) and implementation != CCE and problem.n > SMALL


def _not_the_largest(problem: Any, implementation: str) -> bool:
    return _large(problem, implementation) and (problem.n, problem.d) != (65536, 4096)


def _small(problem: Any, implementation: str) -> bool:
    return isinstance(problem, InfoNce) and implementation != CCE and problem.n <= SMALL


def _steps(*names: str) -> Callable[[Any, str], bool]:
    return lambda case, contender: case.name in names


# Whether a part takes a problem, or a training step, with an implementation.
PARTS: dict[str, Callable[[Any, str], bool]] = {
    "headline": _large,
    "infonce": _not_the_largest,
    "small": _small,
    "cce": lambda problem, implementation: implementation == CCE,
    "matching": lambda problem, implementation: isinstance(problem, LanguageMatching | SpanMean | PooledInfoNce),
    "steps1": _steps("8b-qlora-align-1024"),
    "steps2": _steps("8b-qlora-align-128"),
    "steps3": _steps("8b-qlora-instruct-128"),
    "steps4": _steps("8b-lora-align-1024", "8b-qlora-align-4096"),
}

TINY: dict[type, dict[str, Any]] = {
    InfoNce: {"n": 24, "d": 16},
    LanguageMatching: {"m": 20, "d": 16, "width": 8},
    SpanMean: {"t": 60, "s": 3, "d": 16},
    PooledInfoNce: {"t": 120, "n": 8, "d": 16},
}
TINY_STEP: dict[str, Any] = {"shape": "tiny", "rows": 8, "tokens_per_micro_batch": 512, "rows_per_micro_batch": 4, "cap_gb": None}


def select(cases: Iterable[tuple[Any, str]], part: str | None, dry_run: bool) -> list[tuple[Any, str]]:
    """The (problem or training step, implementation) of a part; in a dry run with tiny sizes, each once."""
    taken = [case for case in cases if part is None or PARTS[part](*case)]
    return list(dict.fromkeys((tiny(problem), name) for problem, name in taken)) if dry_run else taken


def tiny(problem: Any) -> Any:
    """The same kind of problem, or of training step, at a size that takes a CPU no time."""
    sizes = TINY.get(type(problem), TINY_STEP)
    if isinstance(problem, InfoNce):
        sizes = sizes | {"m": 24 if problem.m == problem.n else 40}
    return dataclasses.replace(problem, **sizes)
