"""Which rows make up each optimizer step, and how many steps there are."""

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

from alignx_fast.config import StageSettings
from alignx_fast.data.mixing import epoch_order
from alignx_fast.errors import UserError


def rows_in_step(settings: StageSettings, rows: int, processes: int = 1) -> int:
    """Rows of one optimizer step of all processes: as asked, and no more than there are.

    Raises:
        UserError: there is not one for each process.
    """
    per_step = min(settings.step_rows, rows)
    if per_step < processes:
        raise UserError(
            f"{processes} processes cannot share {per_step} rows a step: start fewer, or give more rows "
            "(align.pairs_per_step, instruct.rows_per_step)."
        )
    return per_step


def steps_in_epochs(epochs: float, rows: int, per_step: int) -> int:
    """Optimizer steps of so many passes over `rows` rows; rows that fill no step of their own wait for the next epoch."""
    return max(1, round(epochs * (rows // per_step)))


class StepSampler(Sampler[list[int]]):
    """Batches of `rows_per_step` row numbers for the whole run; epoch e is ordered by (seed, e), so resuming is exact."""

    def __init__(self, groups: np.ndarray, rows_per_step: int, steps: int, *, temperature: float, seed: int) -> None:
        self.groups, self.rows_per_step, self.steps, self.temperature, self.seed = groups, rows_per_step, steps, temperature, seed

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        given, epoch, waiting = 0, 0, np.empty(0, dtype=np.int64)
        while given < self.steps:
            while len(waiting) < self.rows_per_step:
                order = epoch_order(self.groups, temperature=self.temperature, seed=self.seed, epoch=epoch)
                waiting = np.concatenate([waiting, order])
                epoch += 1
            step, waiting = waiting[: self.rows_per_step], waiting[self.rows_per_step :]
            given += 1
            yield step.tolist()
