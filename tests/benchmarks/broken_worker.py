"""A worker of the benchmarks whose implementations break, hang or die; the test starts it in place of the real one."""

import json
import os
import sys
import time

from benchmarks.implementations import implementation
from benchmarks.implementations.info_nce import eager
from benchmarks.worker import serve


@implementation("info_nce", "raises", ours=True)
def raises(problem):
    raise RuntimeError("CUDA error: an illegal memory access was encountered\nsecond line")


@implementation("info_nce", "hangs")
def hangs(problem):
    time.sleep(600)


@implementation("info_nce", "dies")
def dies(problem):
    os.abort()


@implementation("info_nce", "talks")
def talks(problem):
    print("not an answer", flush=True)
    return eager(problem)


if __name__ == "__main__":
    serve(json.loads(sys.argv[1]))
