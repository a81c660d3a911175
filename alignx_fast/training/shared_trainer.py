"""`transformers.Trainer` in several processes that stay the same: they start, log, save and stop together, and the first of them writes."""

import logging
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import Trainer, set_seed

from alignx_fast.losses.base import Loss
from alignx_fast.training.processes import Processes, join
from alignx_fast.training.random_state import RANDOM_STATES_FILE, RandomState, random_state, set_random_state

log = logging.getLogger(__name__)

WISHES = ("should_log", "should_evaluate", "should_save", "should_epoch_stop", "should_training_stop")
"""What callbacks may ask for at the end of a step."""


class SharedTrainer(Trainer):
    """A Trainer whose step is taken by all processes together, as `AlignStep` does, and leaves the same gradients in each."""

    model: nn.Module

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        # The step sums the gradients itself: DistributedDataParallel would hold a second copy of them for nothing.
        self.accelerator.prepare_model = partial(self.accelerator.prepare_model, evaluation_mode=True)
        self._random_states: list[RandomState] = []

    @property
    def processes(self) -> Processes:
        """Those that train together."""
        return join()

    def trained_losses(self) -> list[Loss]:
        """The losses, whose parameters are trained beside the model."""
        raise NotImplementedError

    def _prepare_for_training(self, *args: Any) -> Any:
        """Every process starts from the weights of the first, with dropout of its own."""
        prepared = super()._prepare_for_training(*args)  # type: ignore[no-untyped-call]
        modules = (self.model, *self.trained_losses())
        self.processes.same(p for module in modules for p in module.parameters() if p.requires_grad)
        if self.processes.rank:
            self._draw_anew(0)
        return prepared

    def _draw_anew(self, step: int) -> None:
        """Random numbers of this process alone, from the seed and a step."""
        number = np.random.SeedSequence((self.args.seed, step, self.processes.rank)).generate_state(1)
        set_seed(int(number[0]))

    def _maybe_log_save_evaluate(self, *args: Any, **options: Any) -> None:
        """What one process wants to do, such as to stop because it was told to, all of them do, and at the same step."""
        for wish in WISHES:
            setattr(self.control, wish, self.processes.any(getattr(self.control, wish)))
        super()._maybe_log_save_evaluate(*args, **options)

    def store_flos(self) -> None:
        """Every process counts the operations of the whole step, so that nothing is to be added up."""
        self.state.total_flos += self.current_flos
        self.current_flos = 0

    # Checkpoints.

    def _save_checkpoint(self, model: nn.Module, trial: Any = None) -> None:
        self._random_states = self.processes.each(random_state(self.args.device))
        self.processes.first(lambda: self._write_checkpoint(model, trial))

    def _write_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Called in the first process only."""
        super()._save_checkpoint(model, trial)

    def _save_rng_state(self, output_dir: str) -> None:
        if self.processes.count == 1:
            super()._save_rng_state(output_dir)
        else:
            torch.save(self._random_states, Path(output_dir) / RANDOM_STATES_FILE)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        """Random numbers go on where they were; where the checkpoint is one of another number of processes, they are drawn anew."""
        assert checkpoint is not None
        file = Path(checkpoint) / RANDOM_STATES_FILE
        states: list[RandomState] = torch.load(file, weights_only=True) if file.exists() else []
        if self.processes.count == 1 and not states:
            super()._load_rng_state(checkpoint)
        elif self.processes.count == len(states):
            set_random_state(states[self.processes.rank], self.args.device)
        else:
            log.info("The checkpoint is one of another number of processes: dropout is drawn anew from here on.")
            self._draw_anew(self.state.global_step)
