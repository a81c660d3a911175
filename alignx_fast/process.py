"""This process: its place among those that torchrun has started, and what libraries would fetch, send or print unasked, switched off."""

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def count() -> int:
    """Processes that torchrun or accelerate has started for this command."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """The number of this one, from 0."""
    return int(os.environ.get("RANK", "0"))


def local_rank() -> int:
    """The number of this one among those on its machine, which is that of its GPU."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def local_count() -> int:
    """Processes on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", count()))


def set_up_process() -> None:
    """Prepare the process of the command line, before any heavy import; what the user has set in the environment stays."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not sys.stderr.isatty() or local_rank():
        os.environ.setdefault(
            "HF_HUB_DISABLE_PROGRESS_BARS", "1"
        )  # bars fill log files with thousands of lines, and one is enough
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")  # its warnings are about matters that the user did not choose
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # else it warns in every process that was forked
    # With the `kernels` package installed, transformers and bitsandbytes would fetch compiled code from the hub.
    os.environ.setdefault("USE_HUB_KERNELS", "0")
    sys.modules.setdefault("kernels", None)  # type: ignore[arg-type]
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns when it cannot fetch that code


@contextmanager
def without_hub_kernels() -> Iterator[None]:
    """Inside the block an import of bitsandbytes fetches no compiled code from the hub, and does not warn that it could not."""
    logger, name = logging.getLogger("bitsandbytes"), "kernels"
    level, loaded, module = logger.level, name in sys.modules, sys.modules.get(name)
    logger.setLevel(logging.ERROR)
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        logger.setLevel(level)
        if loaded:
            sys.modules[name] = module  # type: ignore[assignment]
        else:
            sys.modules.pop(name, None)
