"""What the compiler makes of every kernel on every architecture, without a GPU: `python -m alignx_kernels.compiled`.

Each `EXAMPLES` entry of the kernel files is compiled as a real launch would be, with the settings of `tiles`; the result is a
markdown table of registers, spills, shared memory and tensor-core instructions.
"""

import argparse
import importlib
import re
import subprocess
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from .tiles import ARCHITECTURES, SHARED_MEMORY, Example, Tile

KERNEL_FILES = ("span_mean_triton", "info_nce_examples", "language_matching_triton")
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


def examples() -> list[Example]:
    """All examples of all kernel files, in order."""
    return [example for file in KERNEL_FILES for example in importlib.import_module(f"{__package__}.{file}").EXAMPLES]


def compile_example(example: Example, arch: int) -> Report:
    """Compile one kernel for one architecture and read what became of it."""
    tile = example.tile(arch)
    binary = build(example, arch)
    registers, stack = resource_usage(binary.asm["cubin"])
    instruction = next((known for known in TENSOR_CORE_INSTRUCTIONS if known in binary.asm["ptx"]), None)
    return Report(example.name, arch, tile, registers, stack, binary.metadata.shared, instruction)


def build(example: Example, arch: int):
    """Triton's compiled kernel; takes seconds the first time, then Triton's disk cache answers."""
    tile = example.tile(arch)
    constants = {**example.constants, **tile.blocks}
    names = example.kernel.arg_names
    arguments = example.arguments(arch) if callable(example.arguments) else example.arguments
    signature = {name: arguments.get(name, "constexpr") for name in names}
    if missing := [name for name in names if name not in arguments and name not in constants]:
        raise ValueError(f"The example {example.name!r} gives no type or value for {missing}.")
    # A launch finds these out from the values: allocations are aligned, and so are most sizes and strides.
    aligned = [
        (names.index(name),)
        for name, kind in arguments.items()
        if (kind.startswith("*") or kind in ("i32", "i64")) and name not in example.unaligned
    ]
    source = ASTSource(
        example.kernel,
        signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={index: [["tt.divisibility", 16]] for index in aligned},
    )
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=tile.compiler_options)


def resource_usage(cubin: bytes) -> tuple[int, int]:
    """Registers and stack bytes per thread, read by the `cuobjdump` that comes with Triton."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", str(path)]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    usage = re.search(r"REG:(\d+) STACK:(\d+)", text)
    if usage is None:
        raise RuntimeError(f"cuobjdump printed no resource usage: {text!r}")
    return int(usage[1]), int(usage[2])


def markdown(reports: Iterable[Report]) -> str:
    return "\n".join([HEADER, *(report.row for report in reports)])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m alignx_kernels.compiled", description=__doc__)
    parser.add_argument("--kernel", default="", help="only kernels whose name contains this")
    parser.add_argument("--arch", type=int, choices=ARCHITECTURES, help="only this architecture, such as 90")
    chosen = parser.parse_args()
    picked = [example for example in examples() if chosen.kernel in example.name]
    archs = [chosen.arch] if chosen.arch else ARCHITECTURES
    print(markdown(compile_example(example, arch) for example in picked for arch in archs))


if __name__ == "__main__":
    main()
