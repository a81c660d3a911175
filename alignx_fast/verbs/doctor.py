"""`alignx-fast doctor`: what this machine has, what will be used of it, and what to install."""

import torch
from alignx_kernels import choose_implementation
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alignx_fast import hardware
from alignx_fast.environment import machine, versions

MISSING = {
    "flash-attn": "optional: pip install 'alignx-fast[flash-attn]'; without it FlashAttention inside torch is used on a GPU",
    "bitsandbytes": "needed for qlora: pip install bitsandbytes",
    "liger-kernel": "optional: fused layers on a GPU: pip install liger-kernel",
    "triton": "needed for the fused losses on a GPU (Linux): pip install triton",
}


def examine() -> None:
    """Print three tables: machine, packages, and what training would use here."""
    console = Console(highlight=False, markup=False, emoji=False)
    console.print(_table("Machine", [(key.replace("_", " "), str(value)) for key, value in machine().items()]))
    console.print(_table("Packages", [(name, _package(name, version)) for name, version in versions().items()]))
    try:
        used = _used()
    except ImportError as error:
        console.print(f"Install what is missing first ({error}).")
    else:
        console.print(_table("What will be used", used))


def _package(name: str, version: str | None) -> str:
    return version or f"missing ({MISSING.get(name, f'pip install {name}')})"


def _used() -> list[tuple[str, str]]:
    from alignx_fast.models.attention import available, choose

    gpu = hardware.on_gpu()
    precision = hardware.dtype_name(hardware.compute_dtype())
    if gpu and not hardware.bf16_works():
        precision += " with loss scaling: this GPU has no bfloat16"
    rows = [
        ("device", torch.cuda.get_device_name(0) if gpu else "CPU: fine for small models; a CUDA GPU is needed for large ones"),
        ("matrix products in", precision),
        ("losses", _losses()),
        ("packed attention", choose("auto", hardware.compute_dtype())),
    ]
    return rows + [(f"  {name}", reason or "works here") for name, reason in available().items()]


def _losses() -> str:
    probe = torch.zeros(1, device=hardware.device())
    return f"alignx_kernels, {choose_implementation(None, probe)} implementation"


def _table(title: str, rows: list[tuple[str, str]]) -> Table:
    table = Table(title=title, title_justify="left", show_header=False)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table
