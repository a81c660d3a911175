"""What to change when a stage does not fit: changes are tried in order of what they cost, alone and together."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

from alignx_fast.config import Settings
from alignx_fast.errors import UserError
from alignx_fast.memory.gpus import GIB
from alignx_fast.memory.plan import Plan, plan

MOST_AT_ONCE = 4
"""Changes combined at most."""
NOTHING_FITS = "no change of settings makes it fit, so choose a smaller model or a larger GPU"


@dataclass(frozen=True)
class Change:
    """One setting to change, what it costs to do so, and a rank of that cost."""

    setting: str
    value: object
    price: str
    cost: int

    @property
    def option(self) -> str:
        """As written on the command line."""
        return f"--{self.setting} {str(self.value).lower() if isinstance(self.value, bool) else self.value}"


ChangeSet = tuple[Change, ...]
"""Changes that are made together."""


def check_fits(settings: Settings, gpu_bytes: int) -> None:
    """Refuse settings that cannot fit, before any weight is read.

    Raises:
        UserError: a stage does not fit; says which changes would make it fit, cheapest first.
    """
    for stage in settings.stages:
        planned = plan(settings, gpu_bytes=gpu_bytes, stage=stage)
        if not planned.fits:
            raise UserError(refusal(planned, changes(settings, gpu_bytes=gpu_bytes)))


def refusal(planned: Plan, change_sets: list[ChangeSet]) -> str:
    """One sentence: how much is missing, and what would make it fit."""
    needs, has = f"{planned.total / GIB:.1f} GiB", f"{planned.gpu_bytes / GIB:.1f} GiB"
    shortage = f"Stage {planned.stage} of {planned.model} needs {needs} by plan, and the GPU has {has}"
    if not change_sets:
        return f"{shortage}; {NOTHING_FITS}."
    listed = "; or ".join(" ".join(change.option for change in change_set) for change_set in change_sets)
    return f"{shortage}; the cheapest changes that make it fit: {listed}."


def changes(settings: Settings, *, gpu_bytes: int, most: int = 3) -> list[ChangeSet]:
    """The cheapest sets of changes with which every stage fits, none containing another."""
    known = list(_possible(settings))
    sizes = range(1, MOST_AT_ONCE + 1)
    candidates = [change_set for size in sizes for change_set in combinations(known, size) if _consistent(change_set)]
    chosen: list[ChangeSet] = []
    for change_set in sorted(candidates, key=lambda changes: (sum(change.cost for change in changes), len(changes))):
        if len(chosen) == most:
            break
        if any(set(smaller) <= set(change_set) for smaller in chosen):
            continue
        changed = apply(settings, change_set)
        if all(plan(changed, gpu_bytes=gpu_bytes, stage=stage).fits for stage in settings.stages):
            chosen.append(change_set)
    return chosen


def apply(settings: Settings, change_set: ChangeSet) -> Settings:
    """The settings with the changes made."""
    changed = settings.model_copy(deep=True)
    for change in change_set:
        *groups, leaf = change.setting.split(".")
        group: object = changed
        for name in groups:
            group = getattr(group, name)
        setattr(group, leaf, change.value)
    return changed


def _possible(settings: Settings) -> Iterator[Change]:
    model, align = settings.model, settings.align
    for stage in settings.stages:
        group = settings.stage(stage)
        if group.tokens_per_micro_batch != "auto":
            yield Change(f"{stage}.tokens_per_micro_batch", "auto", "smaller micro-batches", 1)
        if group.optimizer == "adamw" or (group.optimizer == "auto" and model.tuning != "qlora"):
            yield Change(f"{stage}.optimizer", "paged_adamw_8bit", "8-bit moments", 2)
    if int(model.gradient_checkpointing) != 1:
        yield Change("model.gradient_checkpointing", True, "a third more computation", 2)
    if "align" in settings.stages:
        for loss in align.losses:
            for saving in loss.savings():
                yield Change(f"align.{loss.loss.name}.{saving.setting}", saving.value, saving.price, saving.cost)
        if align.pairs_per_step > 1024:
            yield Change("align.pairs_per_step", 1024, "fewer negatives", 5)
    if not model.offload_checkpoints:
        yield Change("model.offload_checkpoints", True, "copies to and from CPU memory", 4)
    if model.tuning != "full" and model.lora.rank > 16:
        yield Change("model.lora.rank", 16, "smaller adapters", 5)
    if model.tuning == "full":
        yield Change("model.tuning", "lora", "adapters instead of all weights; take a learning rate near 2e-4", 6)
    if model.tuning != "qlora":
        yield Change("model.tuning", "qlora", "adapters on 4-bit weights; take a learning rate near 2e-4", 8)
    for length in (256, 128):
        if settings.data.max_length > length:
            yield Change("data.max_length", length, f"rows are cut at {length} tokens", 10 if length == 256 else 14)


def _consistent(change_set: ChangeSet) -> bool:
    """No setting twice."""
    return len({change.setting for change in change_set}) == len(change_set)
