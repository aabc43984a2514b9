"""One number for a noisy image, from the inner half of a U-Net: a critic may start as a teacher."""

from __future__ import annotations

import copy

from torch import Tensor, nn

from pagoda.diffusion.edm import scalings
from pagoda.networks.layers import MeanLogit
from pagoda.networks.unet import UNetTrunk


class EncoderLogit(nn.Module):
    """Encoder and middle of a U-Net, and a small head on their mean over the image.

    Args:
        trunk: of which a copy is taken, without its decoder; all of the copy trains.
        sigma_data: of the scalings c_in and c_noise (EDM, table 1).
    """

    def __init__(self, trunk: UNetTrunk, sigma_data: float) -> None:
        super().__init__()
        self.trunk = copy.deepcopy(trunk).requires_grad_(True)
        self.trunk.decoder = nn.ModuleList()
        self.sigma_data = sigma_data
        self.head = MeanLogit(trunk.spec.channels * trunk.spec.channel_mult[-1])

    def forward(self, x: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
        """X (n, 3, r, r), noise levels sigma (n,) and labels (n,) -> logits (n,)."""
        s = scalings(sigma, self.sigma_data)
        emb = self.trunk.embed(s.c_noise, labels)
        logits: Tensor = self.head(self.trunk.innermost(s.c_in[:, None, None, None] * x, emb))
        return logits
