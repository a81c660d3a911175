"""Random states, saved and put back, so that a second forward pass draws the dropout of the first."""

import torch

RandomState = tuple[torch.Tensor, torch.Tensor | None]
RANDOM_STATES_FILE = "random_states.pth"
"""The states of several processes in a checkpoint; that of one alone is in the file of the Trainer."""


def random_state(device: torch.device) -> RandomState:
    """Random state of the CPU and, on a GPU, of `device`: what dropout is drawn from."""
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def set_random_state(state: RandomState, device: torch.device) -> None:
    """Restore what `random_state` gave."""
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
