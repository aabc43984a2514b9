"""The running mean of a weight over parts of the noise levels, which it is divided by."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

_BINS = 10  # of noise levels
_MEMORY = 0.99  # of the mean, a step


class WeightMean(nn.Module):
    """Weights over their mean where they are, as f-distill's code normalises them.

    The first batch that has weights in a part of the noise levels sets its mean.
    """

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(_BINS))

    def forward(self, weights: Tensor, at: Tensor, total: Callable[[Tensor], Tensor]) -> Tensor:
        """weights (n,), places of their noise levels in [0, 1) -> weights over their means (n,).

        ``total`` sums over the whole batch what this process has of it.
        """
        bins = (at * _BINS).long().clamp(max=_BINS - 1)
        mine = weights.new_zeros(2, _BINS)
        mine[0].index_add_(0, bins, weights)
        mine[1].index_add_(0, bins, torch.ones_like(weights))
        sums, counts = total(mine)
        held = self.get_buffer("mean")
        here = torch.where(counts > 0, sums / counts.clamp(min=1), held.to(sums))
        held.copy_(torch.where(held == 0, here, _MEMORY * held + (1 - _MEMORY) * here))
        return weights / held.to(weights)[bins].clamp(min=torch.finfo(weights.dtype).tiny)
