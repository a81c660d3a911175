"""Past target embeddings as extra negatives."""

from collections import deque

import torch


class TargetQueue:
    """The last `size` target embeddings, none older than `max_age` steps, with the meaning ids that mask false negatives."""

    def __init__(self, size: int, max_age: int) -> None:
        self.size = size
        self.steps: deque[tuple[torch.Tensor, torch.Tensor]] = deque(maxlen=max_age)

    def push(self, targets_ND: torch.Tensor, meanings_N: torch.Tensor) -> None:
        """Add one step's targets; steps that lie wholly beyond the size or the age are dropped."""
        # Copies: a slice would keep the whole step in memory.
        self.steps.append((targets_ND.detach()[-self.size :].clone(), meanings_N[-self.size :].clone()))
        while sum(len(ids) for _, ids in self.steps) - len(self.steps[0][1]) >= self.size:
            self.steps.popleft()

    def negatives(self) -> tuple[torch.Tensor, torch.Tensor] | None:
        """([Q, D], [Q]), newest last, or None while empty."""
        if not self.size or not self.steps:
            return None
        keys, ids = (torch.cat(part)[-self.size :] for part in zip(*self.steps, strict=True))
        return keys, ids

    def state_dict(self) -> dict[str, torch.Tensor]:
        """Tensors to save in a checkpoint."""
        state: dict[str, torch.Tensor] = {}
        for i, (keys, ids) in enumerate(self.steps):
            state |= {f"queue.{i}.keys": keys.contiguous(), f"queue.{i}.ids": ids.contiguous()}
        return state

    def load_state_dict(self, state: dict[str, torch.Tensor], device: torch.device) -> None:
        """Restore what `state_dict` gave."""
        self.steps.clear()
        for i in range(len([name for name in state if name.endswith(".keys")])):
            self.steps.append((state[f"queue.{i}.keys"].to(device), state[f"queue.{i}.ids"].to(device)))
