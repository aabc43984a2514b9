"""What a discriminator is, and a convolutional one that needs no outside weights."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda import distributed

_SQRT_HALF = math.sqrt(0.5)


class _Down(nn.Module):
    """Residual block that halves the resolution (Karras et al. 2020, arXiv 1912.04958, fig. 7)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(in_channels, in_channels, 3, padding=1)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1)
        self.skip = nn.Conv2d(in_channels, out_channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = F.leaky_relu(self.conv0(x), 0.2)
        h = F.avg_pool2d(F.leaky_relu(self.conv1(h), 0.2), 2)
        return (h + self.skip(F.avg_pool2d(x, 2))) * _SQRT_HALF


class Discriminator(nn.Module, ABC):
    """Class-conditional logits of "real", and feature maps to measure distances in.

    Attributes:
        views: copies of the images, each with a draw of its own, that augmentation makes.
    """

    views = 1

    @abstractmethod
    def features(self, x: Tensor) -> list[Tensor]:
        """Feature maps (n, c, h, w) of images x (n, 3, r, r) in [-1, 1]."""

    @abstractmethod
    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """x (n, 3, r, r) in [-1, 1], labels (n,) -> logits (n,) or (n, k)."""


class ConvDiscriminator(Discriminator):
    """Logits of "real" for images of one resolution.

    Residual down-sampling to 4x4, minibatch standard deviation (Karras et al. 2018), then a
    projection head: logit = (w + embed(y)) . h (Miyato and Koyama 2018, arXiv 1802.05637).
    Weights start with He's variance for a leaky slope of 0.2.
    """

    def __init__(self, resolution: int, channels: int, max_channels: int, num_classes: int) -> None:
        super().__init__()
        widths = [min(channels << i, max_channels) for i in range(int(math.log2(resolution)) - 1)]
        self.stem = nn.Conv2d(3, widths[0], 3, padding=1)
        pairs = itertools.pairwise(widths)
        self.downs = nn.ModuleList([_Down(a, b) for a, b in pairs])
        last = widths[-1]
        self.mix = nn.Conv2d(last + 1, last, 3, padding=1)
        self.flat = nn.Linear(last * 16, last)
        self.logit = nn.Linear(last, 1)
        self.label = nn.Embedding(num_classes, last)
        self.apply(_he_init)
        nn.init.normal_(self.label.weight, std=last**-0.5)

    def features(self, x: Tensor) -> list[Tensor]:
        """Activations of every resolution, highest first."""
        h = F.leaky_relu(self.stem(x), 0.2)
        maps = [h]
        for down in self.downs:
            h = down(h)
            maps.append(h)
        return maps

    def classify(self, last: Tensor, labels: Tensor) -> Tensor:
        """Logits (n,) from the 4x4 activations that end :meth:`features`."""
        h = torch.cat([last, _minibatch_std(last)], dim=1)
        h = F.leaky_relu(self.mix(h), 0.2)
        h = F.leaky_relu(self.flat(h.flatten(1)), 0.2)
        projection = (self.label(labels) * h).sum(1) / math.sqrt(h.shape[1])
        logits = self.logit(h).squeeze(1) + projection
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """x (n, 3, r, r), labels (n,) -> logits (n,)."""
        return self.classify(self.features(x)[-1], labels)


def _minibatch_std(x: Tensor) -> Tensor:
    """(n, c, h, w) -> (n, 1, h, w): the mean over c, h, w of the deviation over the batch.

    The batch is that of all processes together.
    """
    values = x.to(torch.promote_types(x.dtype, torch.float32))
    if distributed.world_size() == 1:
        variance = values.var(0, unbiased=False)
    else:
        n = distributed.all_reduce_with_gradient(values.new_full((), len(values)))
        mean = distributed.all_reduce_with_gradient(values.sum(0)) / n
        variance = distributed.all_reduce_with_gradient((values - mean).square().sum(0)) / n
    deviation = (variance + 1e-8).sqrt().mean()
    return deviation.to(x.dtype).expand(x.shape[0], 1, *x.shape[2:])


def _he_init(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        nn.init.kaiming_normal_(module.weight, a=0.2)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
