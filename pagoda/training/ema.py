"""Exponential moving average of weights."""

from __future__ import annotations

import copy

import torch
from torch import nn


class EMA:
    """Keeps ``model``, the average of a module's weights; buffers are copied.

    The decay is ramped, min(decay, (1 + t) / (10 + t)) after t updates, so that a short run does
    not remember its random start.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(module).eval().requires_grad_(False)
        self._source = list(module.parameters())
        self._average = list(self.model.parameters())
        self._moving = [i for i, p in enumerate(self._source) if p.requires_grad]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take one step towards the weights after optimiser step number ``step``, from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        average = [self._average[i].data for i in self._moving]
        source = [self._source[i].data for i in self._moving]
        torch._foreach_lerp_(average, source, 1 - decay)
