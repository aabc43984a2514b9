"""Discriminator heads over feature maps (Sauer et al. 2021, arXiv 2111.01007, and 2202.00273)."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

_EMBEDDING = 64


class PatchHead(nn.Module):
    """Logits of the patches of one feature map, conditioned on the class by projection.

    A block that halves the side for each step of ``widths`` (4x4 convolution with spectral norm,
    batch norm, leaky ReLU), a convolution to 64 channels h, and
    logit = h . lrelu(W embed(y)) / sqrt(64).

    Args:
        widths: channels of the map, then of every block.
        kernel: side of the last convolution; 4 without padding as published, or an odd one that
            keeps the side.
        num_classes: rows of the class embedding.
        classes: (num_classes, d) initial class embedding; random with d = 320 without one.
    """

    def __init__(
        self, widths: list[int], num_classes: int, *, kernel: int = 4, classes: Tensor | None = None
    ) -> None:
        super().__init__()
        blocks = [
            nn.Sequential(
                spectral_norm(nn.Conv2d(a, b, 4, stride=2, padding=1)),
                nn.BatchNorm2d(b),
                nn.LeakyReLU(0.2),
            )
            for a, b in pairwise(widths)
        ]
        self.blocks = nn.Sequential(*blocks)
        padding = kernel // 2 if kernel % 2 else 0
        last = nn.Conv2d(widths[-1], _EMBEDDING, kernel, padding=padding, bias=False)
        self.last = spectral_norm(last)
        table = torch.randn(num_classes, 320) if classes is None else classes.clone()
        self.classes = nn.Parameter(table)
        self.weight = nn.Parameter(torch.randn(_EMBEDDING, table.shape[1]))
        self.bias = nn.Parameter(torch.zeros(_EMBEDDING))

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """x (n, c, h, w), labels (n,) -> logits (n, patches)."""
        h = self.last(self.blocks(x)).float()
        # The scale of the weight is in the forward pass (StyleGAN's equalised learning rate).
        weight = self.weight / math.sqrt(self.weight.shape[1])
        y = F.leaky_relu(F.linear(self.classes[labels], weight, self.bias), 0.2) * math.sqrt(2)
        return torch.einsum("nchw,nc->nhw", h, y.float()).flatten(1) / math.sqrt(_EMBEDDING)
