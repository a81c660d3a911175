"""Every kernel, really compiled for every architecture with the settings used there; no GPU needed."""

import importlib
import pkgutil
import re
import subprocess
import sys

import alignx_kernels
import pytest

pytest.importorskip("triton", reason="Triton runs on Linux only")

from alignx_kernels.compiled import build, compile_example, examples
from alignx_kernels.tiles import ARCHITECTURES, SHARED_MEMORY

EXAMPLES = examples()
# Products take the compiler seconds each: these variants are compiled at every run, the others with the slow tests.
MAIN_PRODUCTS = {
    "info_nce statistics both+ids+mean bf16",
    "info_nce statistics one+ids+mean+slab bf16",
    "info_nce slab both+ids bf16",
}
AT_EVERY_RUN = [example for example in EXAMPLES if not example.uses_dot or example.name in MAIN_PRODUCTS]
# What each architecture multiplies matrices with, in the PTX.
TENSOR_CORES = dict.fromkeys(ARCHITECTURES, "mma.sync") | {90: "wgmma.mma_async", 100: "tcgen05.mma"}


@pytest.mark.parametrize("arch", ARCHITECTURES, ids=lambda arch: f"sm_{arch}")
@pytest.mark.parametrize(
    "example",
    [
        pytest.param(example, id=example.name.replace(" ", "-"), marks=() if example in AT_EVERY_RUN else pytest.mark.slow)
        for example in EXAMPLES
    ],
)
def test_fits_the_card_without_spills(example, arch):
    report = compile_example(example, arch)
    assert report.spilled_bytes == 0
    assert 16 <= report.registers <= 255
    assert report.shared_bytes <= SHARED_MEMORY[arch]
    if example.uses_dot:
        # fp32 is multiplied exactly, which tensor cores do not do.
        is_exact = example.constants.get("INPUT_PRECISION") == "ieee"
        assert report.instruction == (None if is_exact else TENSOR_CORES[arch])


@pytest.mark.parametrize("arch", ARCHITECTURES, ids=lambda arch: f"sm_{arch}")
@pytest.mark.parametrize(("kernel", "per_pair"), [("forward", {"ex2": 1}), ("backward", {"ex2": 1, "rcp": 1})])
def test_language_matching_spends_two_special_functions_a_pair_and_column(kernel, per_pair, arch):
    (example,) = [example for example in EXAMPLES if example.name == f"language_pairs_{kernel} I=128"]
    ptx = build(example, arch).asm["ptx"]
    columns = 16  # of one pair, in a thread: 16 rows of 128 columns over 128 threads
    expected = {name: columns + per_pair.get(name, 0) for name in ("ex2", "rcp")}
    assert {name: ptx.count(f"{name}.approx") for name in expected} == expected
    assert not re.search(r"\bdiv\.\w+\.f32|\b(lg2|tanh|sqrt|rsqrt|sin|cos)\.", ptx)


def test_every_kernel_of_the_package_has_an_example():
    covered = {example.kernel for example in AT_EVERY_RUN}
    for module in pkgutil.iter_modules(alignx_kernels.__path__):
        for name, value in vars(importlib.import_module(f"alignx_kernels.{module.name}")).items():
            if name.endswith("_kernel"):
                assert value in covered, f"{name} is compiled nowhere: add an Example to {module.name}.EXAMPLES"


def test_the_command_prints_a_table():
    command = [sys.executable, "-m", "alignx_kernels.compiled", "--kernel", "span_owner", "--arch", "80"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert lines[0].startswith("| kernel | arch | tile | warps | stages | registers | spilled bytes | shared memory |")
    assert lines[2].startswith("| span_owner | sm_80 | T=128 | 1 | 1 |")
    assert len(lines) == 3
