"""`alignx-fast plan`: where the memory goes, how long a step takes, and what to change when it does not fit."""

import torch
from rich.console import Console
from rich.table import Table

from alignx_fast.config import Settings, Stage
from alignx_fast.errors import UserError
from alignx_fast.memory.advice import changes
from alignx_fast.memory.gpus import GIB, parse_memory
from alignx_fast.memory.plan import plan
from alignx_fast.memory.render import render

DEFAULT_GPU = "24GiB"


def show(settings: Settings, gpu: str | None, *, measured: bool) -> None:
    """Print the plan of every stage; with `measured`, also run one step of each on the GPU and set it beside the plan."""
    console = Console(highlight=False)
    name = ""
    if gpu is None and torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        size, name = card.total_memory, card.name
    else:
        size = parse_memory(gpu or DEFAULT_GPU)
    for stage in settings.stages:
        found = plan(settings, gpu_bytes=size, stage=stage, gpu_name=name)
        ways = [] if found.fits else changes(settings, gpu_bytes=size, stage=stage)
        console.print(render(found, ways), "")
        if measured:
            console.print(_measured(settings, stage), "")


def _measured(settings: Settings, stage: Stage) -> Table:
    if not torch.cuda.is_available():
        raise UserError("--measure runs a step on a CUDA GPU, and there is none here; the plan needs none.")
    from alignx_fast.training.measure import measure

    table = Table(
        "phase", "planned GiB", "measured GiB", "plan is off by", title=f"One step of stage {stage}", title_justify="left"
    )
    for phase in measure(settings, stage=stage):
        table.add_row(phase.phase, f"{phase.planned / GIB:.2f}", f"{phase.measured / GIB:.2f}", f"{phase.error:+.1%}")
    return table
