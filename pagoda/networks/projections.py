"""Frozen random mixing of feature maps (Sauer et al. 2021, arXiv 2111.01007, section 3.2).

Cross-channel mixing (CCM) is a random 1x1 convolution of every map; cross-scale mixing (CSM) adds
the maps up from the lowest resolution to the highest. Weights are buffers: drawn from a seed, part
of the state, never trained.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda.networks.backbones import Backbone


class FrozenConv(nn.Module):
    """A convolution, or its transpose, whose random weights never train.

    Weight and bias are uniform in +-1 / sqrt(fan in), torch's default and that of the original.
    """

    weight: Tensor
    bias: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        rng: torch.Generator,
        *,
        stride: int = 1,
        padding: int = 0,
        transposed: bool = False,
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.transposed = stride, padding, transposed
        ends = (in_channels, out_channels) if transposed else (out_channels, in_channels)
        weight = torch.rand(*ends, kernel, kernel, generator=rng) * 2 - 1
        bound = 1 / math.sqrt(weight[0].numel())
        self.register_buffer("weight", weight * bound)
        bias = torch.rand(out_channels, generator=rng) * 2 - 1
        self.register_buffer("bias", bias * bound)

    def forward(self, x: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c', h', w')."""
        conv = F.conv_transpose2d if self.transposed else F.conv2d
        return conv(x, self.weight, self.bias, self.stride, self.padding)


class ProjectedFeatures(nn.Module):
    """Four maps of a frozen network, mixed over channels and scales.

    CCM takes the maps to width x (1, 2, 4, 8) channels. CSM then goes from the lowest resolution
    to the highest: add the mixed map below, resize bilinearly by 2, 1x1 convolution; all but the
    last halve the channels. The outputs have width x (1, 1, 2, 4) channels, highest resolution
    first, and twice the side of the network's maps.

    A vision transformer's maps are first taken to four scales and c / (8, 4, 2, 1) channels by
    random convolutions (Sauer et al. 2022, arXiv 2202.00273, section 3.2).
    """

    def __init__(self, name: str, weights: str, seed: int, width: int = 64) -> None:
        super().__init__()
        self.backbone = Backbone(name, weights)
        rng = torch.Generator().manual_seed(seed)
        channels = self.backbone.channels
        self.reassemble = nn.ModuleList()
        if self.backbone.is_vit:
            channels = [c >> (3 - i) for i, c in enumerate(channels)]
            self.reassemble = _reassemble(self.backbone.channels, channels, rng)
        mixed = [width << i for i in range(4)]
        pairs = zip(channels, mixed, strict=True)
        self.ccm = nn.ModuleList([FrozenConv(a, b, 1, rng) for a, b in pairs])
        self.channels = [mixed[0], *mixed[:3]]
        pairs = zip(mixed, self.channels, strict=True)
        self.csm = nn.ModuleList([FrozenConv(a, b, 1, rng) for a, b in pairs])

    def forward(self, x: Tensor) -> list[Tensor]:
        """x (n, 3, h, w) in [-1, 1] -> four maps, highest resolution first."""
        maps = self.backbone(x)
        if self.backbone.is_vit:
            maps = [scale(m) for scale, m in zip(self.reassemble, maps, strict=True)]
        maps = [conv(m) for conv, m in zip(self.ccm, maps, strict=True)]
        return self._mix_scales(maps)

    def _mix_scales(self, maps: list[Tensor]) -> list[Tensor]:
        out: list[Tensor] = []
        for conv, h in zip(reversed(self.csm), reversed(maps), strict=True):
            total = h + out[-1] if out else h
            wide = F.interpolate(total, scale_factor=2, mode="bilinear", align_corners=True)
            out.append(conv(wide))
        return out[::-1]


def _reassemble(tokens: list[int], channels: list[int], rng: torch.Generator) -> nn.ModuleList:
    """Random maps of four scales, x4, x2, x1 and x1/2, from token maps of one size."""
    first = [FrozenConv(a, b, 1, rng) for a, b in zip(tokens, channels, strict=True)]
    second = [
        FrozenConv(channels[0], channels[0], 4, rng, stride=4, transposed=True),
        FrozenConv(channels[1], channels[1], 2, rng, stride=2, transposed=True),
        nn.Identity(),
        FrozenConv(channels[3], channels[3], 3, rng, stride=2, padding=1),
    ]
    return nn.ModuleList([nn.Sequential(a, b) for a, b in zip(first, second, strict=True)])
