"""DiffAugment: differentiable augmentation (Zhao et al. 2020, arXiv 2006.10738)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def diff_augment(x: Tensor, seed: int) -> Tensor:
    """Colour, translation (up to 1/8 of the side) and cutout (1/5 of the side).

    The draw depends on ``seed``, batch size and resolution alone, so that real and generated
    batches, or two sides of a distance, can share it.

    Args:
        x: (n, c, h, w) in [-1, 1].
    """
    rng = torch.Generator().manual_seed(seed)
    return _cutout(_translate(_colour(x, rng), rng), rng)


def _uniform(n: int, low: float, high: float, rng: torch.Generator, x: Tensor) -> Tensor:
    return (torch.rand(n, 1, 1, 1, generator=rng) * (high - low) + low).to(x)


def _colour(x: Tensor, rng: torch.Generator) -> Tensor:
    """Brightness U(-.5, .5), saturation U(0, 2), contrast U(.5, 1.5)."""
    x = x + _uniform(len(x), -0.5, 0.5, rng, x)
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * _uniform(len(x), 0.0, 2.0, rng, x) + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * _uniform(len(x), 0.5, 1.5, rng, x) + mean


def _translate(x: Tensor, rng: torch.Generator) -> Tensor:
    n, _, h, w = x.shape
    reach = max(1, h // 8)
    shift = torch.randint(-reach, reach + 1, (2, n), generator=rng).to(x.device)
    rows = torch.arange(h, device=x.device) + shift[0][:, None] + reach
    cols = torch.arange(w, device=x.device) + shift[1][:, None] + reach
    padded = F.pad(x, (reach,) * 4)
    batch = torch.arange(n, device=x.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], cols[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def _cutout(x: Tensor, rng: torch.Generator) -> Tensor:
    n, _, h, w = x.shape
    side = max(1, round(h * 0.2))
    centre = torch.randint(0, h, (2, n), generator=rng).to(x.device)
    near_row = (torch.arange(h, device=x.device) - centre[0][:, None]).abs() * 2 < side
    near_col = (torch.arange(w, device=x.device) - centre[1][:, None]).abs() * 2 < side
    hole = near_row[:, None, :, None] & near_col[:, None, None, :]
    return x.masked_fill(hole, 0.0)
