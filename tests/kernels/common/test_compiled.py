"""Every kernel, really compiled for every architecture with the settings used there; no GPU needed."""

import importlib
import pkgutil
import re
import subprocess
import sys

import alignx_kernels
import pytest

pytest.importorskip("triton", reason="Triton runs on Linux only")

from alignx_kernels.common.tiles import ARCHITECTURES, SHARED_MEMORY
from alignx_kernels.compiled import CASES, build, compile_case

# Products take the compiler seconds each: these variants are compiled at every run, the others with the slow tests.
MAIN_PRODUCTS = {
    "info_nce statistics both+ids+mean+dlogits bf16",
    "info_nce statistics one+ids+mean+dlogits bf16",
    "info_nce dlogits both+ids bf16",
}
AT_EVERY_RUN = [case for case in CASES if not case.uses_dot or case.name in MAIN_PRODUCTS]
# What each architecture multiplies matrices with, in the PTX.
TENSOR_CORES = dict.fromkeys(ARCHITECTURES, "mma.sync") | {90: "wgmma.mma_async", 100: "tcgen05.mma"}


@pytest.mark.parametrize("arch", ARCHITECTURES, ids=lambda arch: f"sm_{arch}")
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name.replace(" ", "-"), marks=() if case in AT_EVERY_RUN else pytest.mark.slow)
        for case in CASES
    ],
)
def test_fits_the_card_without_spills(case, arch):
    report = compile_case(case, arch)
    assert report.spilled_bytes == 0
    assert 16 <= report.registers <= 255
    assert report.shared_bytes <= SHARED_MEMORY[arch]
    if case.uses_dot:
        # fp32 is multiplied exactly, which tensor cores do not do.
        is_exact = case.constants.get("INPUT_PRECISION") == "ieee"
        assert report.instruction == (None if is_exact else TENSOR_CORES[arch])


@pytest.mark.parametrize("arch", ARCHITECTURES, ids=lambda arch: f"sm_{arch}")
@pytest.mark.parametrize(("kernel", "per_pair"), [("forward", {"ex2": 1}), ("backward", {"ex2": 1, "rcp": 1})])
def test_language_matching_spends_two_special_functions_a_pair_and_column(kernel, per_pair, arch):
    (case,) = [case for case in CASES if case.name == f"language_pairs_{kernel} I=128"]
    ptx = build(case, arch).asm["ptx"]
    columns = 16  # of one pair, in a thread: 16 rows of 128 columns over 128 threads
    expected = {name: columns + per_pair.get(name, 0) for name in ("ex2", "rcp")}
    assert {name: ptx.count(f"{name}.approx") for name in expected} == expected
    assert not re.search(r"\bdiv\.\w+\.f32|\b(lg2|tanh|sqrt|rsqrt|sin|cos)\.", ptx)


def test_every_kernel_of_the_package_has_a_case():
    covered = {case.kernel for case in AT_EVERY_RUN}
    for module in pkgutil.walk_packages(alignx_kernels.__path__, "alignx_kernels."):
        if module.name.startswith("alignx_kernels.integrations."):  # they need the libraries they are for, and have no kernels
            continue
        for name, value in vars(importlib.import_module(module.name)).items():
            if name.endswith("_kernel"):
                assert value in covered, f"{name} is compiled nowhere: add a CompileCase to the compile_cases of its operator"


def test_the_command_prints_a_table():
    command = [sys.executable, "-m", "alignx_kernels.compiled", "--kernel", "span_owner", "--arch", "80"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    assert lines[0].startswith("| kernel | arch | tile | warps | stages | registers | spilled bytes | shared memory |")
    assert lines[2].startswith("| span_owner | sm_80 | T=128 | 1 | 1 |")
    assert len(lines) == 3
