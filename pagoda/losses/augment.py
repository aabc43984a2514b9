"""DiffAugment: differentiable augmentation (Zhao et al. 2020, arXiv 2006.10738)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from pagoda import distributed


def diff_augment(x: Tensor, seed: int, of: int | None = None) -> Tensor:
    """Colour, translation (up to 1/8 of the side) and cutout (1/5 of the side).

    The draw depends on ``seed``, batch size and resolution alone, so that real and generated
    batches, or two sides of a distance, can share it.

    Args:
        x: (n, c, h, w) in [-1, 1].
        of: size of the batch of all processes, of which x is this one's share; None: x is all.
    """
    draws = _Draws(seed, len(x) if of is None else of)
    return _cutout(_translate(_colour(x, draws), draws), draws)


class _Draws:
    """Random numbers of a batch, of which this process takes its share."""

    def __init__(self, seed: int, batch: int) -> None:
        self.rng, self.batch = torch.Generator().manual_seed(seed), batch
        self.mine = distributed.local_rows(batch)

    def uniform(self, low: float, high: float, x: Tensor) -> Tensor:
        values = torch.rand(self.batch, 1, 1, 1, generator=self.rng)[self.mine]
        return (values * (high - low) + low).to(x)

    def pairs(self, low: int, high: int, x: Tensor) -> Tensor:
        """(2, n) whole numbers in [low, high)."""
        values = torch.randint(low, high, (2, self.batch), generator=self.rng)
        return values[:, self.mine].to(x.device)


def _colour(x: Tensor, draws: _Draws) -> Tensor:
    """Brightness U(-.5, .5), saturation U(0, 2), contrast U(.5, 1.5)."""
    x = x + draws.uniform(-0.5, 0.5, x)
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * draws.uniform(0.0, 2.0, x) + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * draws.uniform(0.5, 1.5, x) + mean


def _translate(x: Tensor, draws: _Draws) -> Tensor:
    n, _, h, w = x.shape
    reach = max(1, int(h / 8 + 0.5))
    shift = draws.pairs(-reach, reach + 1, x)
    rows = torch.arange(h, device=x.device) + shift[0][:, None] + reach
    cols = torch.arange(w, device=x.device) + shift[1][:, None] + reach
    padded = F.pad(x, (reach,) * 4)
    batch = torch.arange(n, device=x.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], cols[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def _cutout(x: Tensor, draws: _Draws) -> Tensor:
    """A square hole of zeros; of an even side, it lies from side / 2 before its centre on."""
    resolution = x.shape[-1]
    side = max(1, int(resolution * 0.2 + 0.5))
    centre = draws.pairs(0, resolution + 1 - side % 2, x)
    inside = torch.arange(resolution, device=x.device) - centre[:, :, None] + side // 2
    rows, cols = (inside >= 0) & (inside < side)
    return x.masked_fill((rows[:, :, None] & cols[:, None, :])[:, None], 0.0)
