"""A plan as a table for the terminal."""

from rich.console import Group
from rich.table import Table
from rich.text import Text

from alignx_fast.losses.cost import PHASES
from alignx_fast.memory import formulas
from alignx_fast.memory.advice import NOTHING_FITS, ChangeSet
from alignx_fast.memory.gpus import GIB, UTILISATION
from alignx_fast.memory.plan import Plan
from alignx_fast.memory.speed import TOKENS_PER_ROW

PHASE_NAMES = {
    "first_pass": "first pass for the sentence vectors",
    "losses": "losses over the step",
    "head": "logits",
    "backward": "backward pass",
    "optimizer": "update",
}


def render(plan: Plan) -> Group:
    """Components in GiB, total, what is free, the largest micro-batch, and the estimate of time."""
    title = f"{plan.model}, stage {plan.stage}, {plan.tokens:,} tokens per micro-batch"
    table = Table(title=title, title_justify="left", title_style="bold", show_footer=True, box=None)
    table.add_column("component", footer="planned")
    table.add_column("GiB", justify="right", footer=f"{plan.total / GIB:.2f}")
    table.add_column("held", footer=f"most in: {PHASE_NAMES[plan.peak_phase]}")
    for part in plan.parts:
        counted = plan.peak_phase in part.phases
        held = "" if part.phases == PHASES else ", ".join(PHASE_NAMES[phase] for phase in part.phases)
        table.add_row(
            part.name, f"{part.bytes / GIB:.2f}", held + ("" if counted else " (not at the peak)"), style="" if counted else "dim"
        )
    table.add_row("allocator's fragments", f"{plan.slack / GIB:.2f}", "")
    table.add_row("CUDA context and libraries", f"{formulas.CONTEXT_BYTES / GIB:.2f}", "")
    return Group(table, Text(""), *(Text(line) for line in sentences(plan)))


def sentences(plan: Plan) -> list[str]:
    """What the table does not say."""
    free = (plan.gpu_bytes - plan.total) / GIB
    card = f"{plan.gpu_bytes / GIB:.1f} GiB"
    lines = [f"Fits {card}, {free:.1f} GiB free." if plan.fits else f"Does not fit {card}: {-free:.1f} GiB are missing."]
    if plan.largest is not None:
        lines.append(f"Largest micro-batch that fits: {plan.largest:,} tokens.")
    if plan.cpu_bytes:
        lines.append(f"CPU memory for checkpoints: {plan.cpu_bytes / GIB:.1f} GiB.")
    rows = f"{plan.rows_per_step:,} {'pairs' if plan.stage == 'align' else 'rows'}"
    lines.append(
        f"Estimate, not measured: {plan.step_seconds:.1f} s per step of {rows} ({plan.step_tokens / plan.step_seconds:,.0f} tokens/s), "
        f"taking rows of {TOKENS_PER_ROW} tokens and {UTILISATION:.0%} of an {plan.gpu.name}'s {plan.gpu.tflops:,.0f} TFLOP/s."
    )
    if plan.processes > 1:
        lines.append(
            f"On each of {plan.processes} GPUs; every one of them sends {plan.exchanged / GIB:.2f} GiB of gradients a step besides, whose time depends on "
            "how they are connected and is not in the estimate."
        )
    lines.append(f"Parameters: {plan.parameters:,}, of which {plan.trained:,} trained." if plan.trained < plan.parameters else "")
    if plan.origin == "published figures":
        lines.append("The model's configuration is not on this machine: published figures of its architecture were used.")
    return [line for line in lines if line]


def render_changes(change_sets: list[ChangeSet]) -> Group:
    """The `changes` of settings that make it fit."""
    if not change_sets:
        return Group(Text(f"{NOTHING_FITS[0].upper()}{NOTHING_FITS[1:]}."))
    lines = ["The cheapest ways to make every stage fit:" if len(change_sets) > 1 else "The way to make every stage fit:"]
    for change_set in change_sets:
        options = " ".join(change.option for change in change_set)
        prices = "; ".join(dict.fromkeys(change.price for change in change_set))
        lines.append(f"  {options}    ({prices})")
    return Group(*(Text(line) for line in lines))
