"""A super-resolution denoiser, the upper stages of a cascade (CDM, Ho et al., arXiv 2106.15282).

The network sees the noisy high-resolution image, the up-sampled low-resolution condition beside
it, and the condition's own noise level as one more map. CDM feeds that level through an embedding;
a map needs no second embedding and says the same.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda.networks.denoiser import Preconditioned
from pagoda.networks.unet import UNetSpec
from pagoda.weight_files import fitted

_INPUTS = 3 + 3 + 1


class SuperResolver(Preconditioned):
    """D(x; s | c, s_c) = c_skip x + c_out F(c_in x, c_in(s_c) c, s_c; c_noise)."""

    def __init__(self, spec: UNetSpec, sigma_data: float) -> None:
        super().__init__(spec, sigma_data)
        self.net.trunk.stem = nn.Conv2d(_INPUTS, spec.channels, 3, padding=1)

    def forward(
        self, x: Tensor, sigma: Tensor, labels: Tensor | None, condition: Tensor, level: Tensor
    ) -> Tensor:
        """Denoise x (n, 3, r, r) at sigma (n,), given a condition with noise ``level`` (n,).

        Args:
            condition: (n, 3, r, r), up-sampled with its noise already added.
        """
        s = self.scalings(x, sigma)
        at = level[:, None, None, None].to(x.dtype)
        seen = condition * (at**2 + self.sigma_data**2).rsqrt()
        inputs = torch.cat([s.c_in * x, seen, at.expand_as(x[:, :1])], dim=1)
        out = self.net(inputs, s.c_noise.flatten(), labels)
        return s.c_skip * x + s.c_out * out.to(x.dtype)


def load_super_resolver(weights: dict[str, Tensor], card: dict[str, Any]) -> SuperResolver:
    """A super-resolver from an artifact's weights and card, in eval mode."""
    return fitted(SuperResolver.from_card, weights, card)


def condition(images: Tensor, resolution: int, level: Tensor, noise: Tensor) -> Tensor:
    """Low-resolution images up-sampled (bilinear), with noise of size ``level`` (n,) added.

    CDM's conditioning augmentation: without it the model trusts details of the condition that the
    stage below gets wrong.

    Args:
        images: (n, 3, b, b) in [-1, 1].
        noise: (n, 3, resolution, resolution) standard normal.
    """
    size = (resolution, resolution)
    large = F.interpolate(images, size, mode="bilinear", align_corners=False)
    return large + level[:, None, None, None] * noise
