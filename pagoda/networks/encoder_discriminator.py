"""A discriminator on the teacher's own encoder: no weights from outside.

The teacher's encoder has learned what images look like at every noise level; heads over its
feature maps judge images as those of :mod:`pagoda.networks.projected` do. Trained in a like way
in Yin et al. 2024 (arXiv 2405.14867, section 4.3), where the encoder trains too; here it is frozen.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda.diffusion.edm import scalings
from pagoda.networks.denoiser import Denoiser
from pagoda.networks.discriminator import Discriminator
from pagoda.networks.heads import PatchHead

_PATCHES = 4  # side of the logits of every head


class EncoderDiscriminator(Discriminator):
    """One head a resolution of the frozen teacher's encoder.

    Images above the teacher's resolution are seen twice: whole, averaged down to it, and as one
    crop of its size, at a place drawn from torch's global generator.

    Args:
        teacher: its encoder is used; it is no part of the state and of the parameters.
        sigma: noise level that the encoder is told; no noise is added.
        num_classes: number of classes.
        max_channels: largest width of a head.
    """

    def __init__(
        self, teacher: Denoiser, sigma: float, num_classes: int, max_channels: int
    ) -> None:
        super().__init__()
        self._frozen = [teacher.eval().requires_grad_(False)]
        self.sigma, self.resolution = sigma, teacher.spec.resolution
        shapes = [(teacher.spec.channels * m, self.resolution >> i)
                  for i, m in enumerate(teacher.spec.channel_mult)]  # fmt: skip
        self.heads = nn.ModuleList(
            [PatchHead(_widths(c, r, max_channels), num_classes, kernel=3) for c, r in shapes]
        )

    def features(self, x: Tensor, labels: Tensor | None = None) -> list[Tensor]:
        """Encoder maps of x (n, 3, r, r) or, above the teacher's resolution, of both its views.

        The last map of every resolution, highest first; views lie one after the other in the batch.
        """
        views = self._views(x)
        labels = labels if labels is None else labels.repeat(len(views))
        x = torch.cat(views)
        trunk = self._frozen[0].net.trunk
        s = scalings(x.new_full((len(x),), self.sigma), self._frozen[0].sigma_data)
        emb = trunk.embed(s.c_noise, labels)
        h = trunk.stem(s.c_in[:, None, None, None] * x)
        maps = [h]
        for stage in trunk.encoder:
            h = stage(h, emb)
            if h.shape[-1] < maps[-1].shape[-1]:
                maps.append(h)
            maps[-1] = h
        return maps

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """x (n, 3, r, r) in [-1, 1], labels (n,) -> logits (n, views x heads x patches)."""
        maps = self.features(x, labels)
        labels = labels.repeat(len(maps[0]) // len(x))
        pairs = zip(self.heads, maps, strict=True)
        logits = torch.cat([head(m, labels) for head, m in pairs], dim=1)
        return torch.cat(logits.split(len(x)), dim=1)

    def _views(self, x: Tensor) -> list[Tensor]:
        side, room = self.resolution, x.shape[-1] - self.resolution
        if not room:
            return [x]
        top, left = torch.randint(room + 1, (2,)).tolist()
        crop = x[:, :, top : top + side, left : left + side]
        return [F.interpolate(x, (side, side), mode="area"), crop]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        self._frozen[0]._apply(fn)
        return super()._apply(fn, recurse)


def _widths(channels: int, side: int, most: int) -> list[int]:
    steps = max(0, round(math.log2(side / _PATCHES)))
    return [channels, *(min(channels << i, most) for i in range(1, steps + 1))]
