"""Reconstruction of real images from their inverted latents (PaGoDA eq. 2).

L_rec = E_x || x - G(E(x)) ||^2, in pixels and, optionally, in a feature space.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def reconstruction_loss(generated: Tensor, images: Tensor) -> Tensor:
    """Mean squared error over pixels and batch; both (n, c, h, w)."""
    return F.mse_loss(generated, images)


def feature_distance(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Distance between two sets of feature maps, as LPIPS without learned weights.

    Every map (n, c, h, w) is divided by its norm over channels (eps 1e-10, as the official code);
    the squared difference is summed over channels and averaged over pixels, batch and maps.
    """
    total = sum(((_unit(x) - _unit(y)) ** 2).sum(1).mean() for x, y in zip(a, b, strict=True))
    assert isinstance(total, Tensor)
    return total / len(a)


def _unit(x: Tensor) -> Tensor:
    x = x.to(torch.promote_types(x.dtype, torch.float32))
    return x / (x.square().sum(1, keepdim=True) + 1e-10).sqrt()
