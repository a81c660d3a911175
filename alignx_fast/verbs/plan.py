"""`alignx-fast plan`: where the memory goes, how long a step takes, and what to change when it does not fit."""

import torch
from rich.console import Console
from rich.table import Table

from alignx_fast.config import Settings
from alignx_fast.errors import UserError
from alignx_fast.hardware import on_gpu
from alignx_fast.memory.advice import changes
from alignx_fast.memory.gpus import GIB, parse_memory
from alignx_fast.memory.plan import Plan, card_bytes, plan
from alignx_fast.memory.render import render, render_changes
from alignx_fast.training.sampler import rows_in_step

DEFAULT_GPU = "24GiB"


def show(settings: Settings, gpu: str | None, *, measured: bool, processes: int = 1) -> None:
    """Print the plan of every stage; with `measured`, also run one step of each on the GPU and set it beside the plan."""
    console = Console(highlight=False, markup=False, emoji=False)
    name = ""
    if gpu is None and on_gpu():
        card = torch.cuda.get_device_properties(0)
        size, name = card_bytes(), card.name
    else:
        size = parse_memory(gpu or DEFAULT_GPU)
    for group in map(settings.stage, settings.stages):
        rows_in_step(group, group.step_rows, processes)
    fits = True
    for stage in settings.stages:
        planned = plan(settings, gpu_bytes=size, stage=stage, gpu_name=name, processes=processes)
        fits = fits and planned.fits
        console.print(render(planned), "")
        if measured:
            console.print(_measured(settings, planned), "")
    if not fits:
        console.print(render_changes(changes(settings, gpu_bytes=size)))


def _measured(settings: Settings, planned: Plan) -> Table:
    if not on_gpu():
        raise UserError("--measure runs a step on a CUDA GPU, and there is none here; the plan needs none.")
    from alignx_fast.training.measure import measure

    stage = planned.stage
    settings = settings.model_copy(deep=True)
    settings.stage(stage).tokens_per_micro_batch = planned.tokens  # what the table above is for
    step = measure(settings, stage=stage)
    title = f"One step of stage {stage}: {step.tokens:,} tokens in {step.seconds:.2f} s"
    table = Table("phase", "planned GiB", "measured GiB", "plan is off by", "seconds", title=title, title_justify="left")
    for phase in step.phases:
        memory = f"{phase.planned / GIB:.2f}", f"{phase.measured / GIB:.2f}", f"{phase.error:+.1%}"
        table.add_row(phase.phase, *memory, f"{phase.seconds:.2f}")
    return table
