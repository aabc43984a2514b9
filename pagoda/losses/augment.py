"""DiffAugment: differentiable augmentation (Zhao et al. 2020, arXiv 2006.10738)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F


@dataclass(frozen=True)
class Augmentation:
    """Random numbers of a batch: images that share them are augmented alike.

    Attributes:
        colour: (n, 3) uniform in [0, 1): of brightness, saturation and contrast.
        shift: (n, 2) rows and columns of the translation.
        centre: (n, 2) row and column of the hole.
    """

    colour: Tensor
    shift: Tensor
    centre: Tensor

    @classmethod
    def draw(cls, n: int, resolution: int, random: torch.Generator) -> Augmentation:
        """The numbers of ``n`` images of one resolution."""
        reach, side = _reach(resolution), _side(resolution)
        colour = torch.cat([torch.rand(n, 1, generator=random) for _ in range(3)], 1)
        shift = torch.randint(-reach, reach + 1, (2, n), generator=random)
        centre = torch.randint(0, resolution + 1 - side % 2, (2, n), generator=random)
        return cls(colour, shift.T, centre.T)

    def map(self, change: Callable[[Tensor], Tensor]) -> Augmentation:
        """Each of the arrays changed: cut, or moved to a device."""
        return Augmentation(change(self.colour), change(self.shift), change(self.centre))


def diff_augment(x: Tensor, numbers: Augmentation) -> Tensor:
    """Colour, translation (up to 1/8 of the side) and cutout (1/5 of the side).

    Args:
        x: (n, c, h, w) in [-1, 1].
        numbers: of n images of this resolution, on the device of x.
    """
    return _cutout(_translate(_colour(x, numbers.colour), numbers.shift), numbers.centre)


def _reach(resolution: int) -> int:
    return max(1, int(resolution / 8 + 0.5))


def _side(resolution: int) -> int:
    return max(1, int(resolution * 0.2 + 0.5))


def _colour(x: Tensor, random: Tensor) -> Tensor:
    """Brightness U(-.5, .5), saturation U(0, 2), contrast U(.5, 1.5)."""
    limits = ((-0.5, 0.5), (0.0, 2.0), (0.5, 1.5))
    brightness, saturation, contrast = (
        (u[:, None, None, None] * (high - low) + low).to(x)
        for u, (low, high) in zip(random.unbind(1), limits, strict=True)
    )
    x = x + brightness
    grey = x.mean(1, keepdim=True)
    x = (x - grey) * saturation + grey
    mean = x.mean((1, 2, 3), keepdim=True)
    return (x - mean) * contrast + mean


def _translate(x: Tensor, shift: Tensor) -> Tensor:
    n, _, h, w = x.shape
    reach = _reach(h)
    rows = torch.arange(h, device=x.device) + shift[:, :1] + reach
    cols = torch.arange(w, device=x.device) + shift[:, 1:] + reach
    padded = F.pad(x, (reach,) * 4)
    batch = torch.arange(n, device=x.device)[:, None, None]
    moved = padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], cols[:, None, :]]
    return moved.permute(0, 3, 1, 2)


def _cutout(x: Tensor, centre: Tensor) -> Tensor:
    """A square hole of zeros; of an even side, it lies from side / 2 before its centre on."""
    resolution = x.shape[-1]
    side = _side(resolution)
    inside = torch.arange(resolution, device=x.device) - centre[:, :, None] + side // 2
    rows, cols = ((inside >= 0) & (inside < side)).unbind(1)
    return x.masked_fill((rows[:, :, None] & cols[:, None, :])[:, None], 0.0)
