"""What the compiler makes of every kernel on every architecture, without a GPU: `python -m alignx_kernels.compiled`.

Every case of the operators' `compile_cases` is compiled as a real launch would be, with the settings of their `tiles`; the result is
a markdown table of registers, spills, shared memory and tensor-core instructions.
"""

import argparse
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from .common.compile_case import CompileCase
from .common.private_apis import CompiledKernel, compile_without_gpu, resource_usage_text
from .common.tiles import ARCHITECTURES, SHARED_MEMORY, Tile
from .info_nce.compile_cases import CASES as INFO_NCE
from .language_matching.compile_cases import CASES as LANGUAGE_MATCHING
from .span_mean.compile_cases import CASES as SPAN_MEAN

CASES = [*SPAN_MEAN, *INFO_NCE, *LANGUAGE_MATCHING]
TENSOR_CORE_INSTRUCTIONS = ("tcgen05.mma", "wgmma.mma_async", "mma.sync")


@dataclass(frozen=True)
class Report:
    """One compiled kernel: registers per thread, stack bytes per thread (spills) and shared memory per block in bytes."""

    name: str
    arch: int
    tile: Tile
    registers: int
    spilled_bytes: int
    shared_bytes: int
    instruction: str | None

    @property
    def row(self) -> str:
        sizes = " ".join(f"{name.removeprefix('BLOCK_')}={size}" for name, size in self.tile.blocks.items())
        shared = f"{self.shared_bytes / 1024:.1f} of {SHARED_MEMORY[self.arch] >> 10} KB"
        return (
            f"| {self.name} | sm_{self.arch} | {sizes} | {self.tile.num_warps} | {self.tile.num_stages} | {self.registers} |"
            f" {self.spilled_bytes} | {shared} | {self.instruction or '-'} |"
        )


HEADER = """| kernel | arch | tile | warps | stages | registers | spilled bytes | shared memory | tensor cores |
|---|---|---|---:|---:|---:|---:|---:|---|"""


def compile_case(case: CompileCase, arch: int) -> Report:
    """Compile one kernel for one architecture and read what became of it."""
    kernel = build(case, arch)
    cubin, ptx = kernel.asm["cubin"], kernel.asm["ptx"]
    assert isinstance(cubin, bytes)
    assert isinstance(ptx, str)
    registers, stack = resource_usage(cubin)
    instruction = next((known for known in TENSOR_CORE_INSTRUCTIONS if known in ptx), None)
    return Report(case.name, arch, case.tile(arch), registers, stack, kernel.metadata.shared, instruction)


def build(case: CompileCase, arch: int) -> CompiledKernel:
    """Triton's compiled kernel; takes seconds the first time, then Triton's disk cache answers."""
    tile, names, types = case.tile(arch), case.kernel.arg_names, case.types(arch)
    constants = {**case.constants, **tile.blocks}
    if missing := [name for name in names if name not in types and name not in constants]:
        raise ValueError(f"The case {case.name!r} gives no type or value for {missing}.")
    signature = {name: types.get(name, "constexpr") for name in names}
    # A launch finds these out from the values: allocations are aligned, and so are most sizes and strides.
    aligned = [
        name for name, kind in types.items() if (kind.startswith("*") or kind in ("i32", "i64")) and name not in case.unaligned
    ]
    return compile_without_gpu(case.kernel, signature, constants, aligned, arch, tile.compiler_options)


def resource_usage(cubin: bytes) -> tuple[int, int]:
    """Registers and stack bytes per thread."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        text = resource_usage_text(str(path))
    usage = re.search(r"REG:(\d+) STACK:(\d+)", text)
    if usage is None:
        raise RuntimeError(f"cuobjdump printed no resource usage: {text!r}")
    return int(usage[1]), int(usage[2])


def markdown(reports: Iterable[Report]) -> str:
    """The table of the package's README."""
    return "\n".join([HEADER, *(report.row for report in reports)])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m alignx_kernels.compiled", description=__doc__)
    parser.add_argument("--kernel", default="", help="only kernels whose name contains this")
    parser.add_argument("--arch", type=int, choices=ARCHITECTURES, help="only this architecture, such as 90")
    chosen = parser.parse_args()
    picked = [case for case in CASES if chosen.kernel in case.name]
    archs = [chosen.arch] if chosen.arch else ARCHITECTURES
    print(markdown(compile_case(case, arch) for case in picked for arch in archs))


if __name__ == "__main__":
    main()
