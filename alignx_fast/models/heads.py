"""What is trained beside the model and thrown away after: the language-matching classifier and the temperature."""

import math

import torch
from torch import nn

from alignx_fast.config import AlignSettings


class AlignmentHeads(nn.Module):
    """The pairwise language-matching classifier (gate, up: [I, 2D]; down: [2, I]) and the contrastive temperature, in fp32."""

    def __init__(self, hidden_size: int, settings: AlignSettings) -> None:
        super().__init__()
        width, self.fixed_temperature = settings.matching.width, settings.contrastive.temperature
        self.gate = nn.Parameter(torch.empty(width, 2 * hidden_size))
        self.up = nn.Parameter(torch.empty(width, 2 * hidden_size))
        self.down = nn.Parameter(torch.empty(2, width))
        for weight in (self.gate, self.up, self.down):
            nn.init.kaiming_uniform_(weight, a=math.sqrt(5))  # as nn.Linear does
        self.log_temperature = nn.Parameter(
            torch.tensor(math.log(settings.contrastive.temperature)), requires_grad=settings.contrastive.learn_temperature
        )

    def temperature(self) -> torch.Tensor | float:
        """tau: a tensor that takes gradients when it is learned, else the number of the settings, for which no GPU is asked."""
        return self.log_temperature.exp() if self.log_temperature.requires_grad else self.fixed_temperature
