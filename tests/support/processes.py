"""Functions run by several processes that find each other as those of torchrun do."""

import multiprocessing
import os
import pickle
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

PRELOADED = ["alignx_fast.training.run", "support.tiny_models"]
"""Imported once, in a server that the processes are forked from."""
SECONDS = 300


def run_together(count: int, work: Callable[..., object], *arguments: object) -> list[Any]:
    """What `work`, a function of a module, returns in each of `count` processes.

    Raises:
        AssertionError: with the traceback of a process that failed.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    started = []
    for rank in range(count):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(rank, count, port, theirs, pickle.dumps((work, arguments))), daemon=True)
        process.start()
        theirs.close()
        started.append((process, ours))
    try:
        outcomes = [pickle.loads(ours.recv_bytes()) if ours.poll(SECONDS) else (False, "no answer") for _, ours in started]
    finally:
        for process, _ in started:
            process.kill()
            process.join()
    for rank, (well, outcome) in enumerate(outcomes):
        assert well, f"process {rank}: {outcome}"
    return [outcome for _, outcome in outcomes]


def _work(rank: int, count: int, port: int, answer: Connection, task: bytes) -> None:
    places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "LOCAL_WORLD_SIZE": count, "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in places.items()} | {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    try:
        import torch

        torch.set_num_threads(1)
        work, arguments = pickle.loads(task)
        answer.send_bytes(pickle.dumps((True, work(*arguments))))  # `send` would pass tensors by names that die with this process
    except BaseException:
        answer.send_bytes(pickle.dumps((False, traceback.format_exc())))
