"""The autoencoder of a latent diffusion model, in the units that its diffusion was trained in."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn


class Autoencoder(nn.Module):
    """``AutoencoderKL`` or ``AutoencoderTiny`` of diffusers.

    Latents are (z - shift) scale of its own z (Rombach et al. 2022, arXiv 2112.10752, appendix G:
    scale 0.18215), so that they have a variance of nearly 1.

    Attributes:
        factor: pixels a side of a latent's pixel.
    """

    def __init__(self, vae: nn.Module) -> None:
        super().__init__()
        self.vae: Any = vae
        config: Any = vae.config
        self.factor = 1 << len(config.block_out_channels) - 1
        self._scale = float(config.scaling_factor)
        self._shift = float(config.get("shift_factor") or 0)

    def encode(self, images: Tensor) -> Tensor:
        """Images (n, 3, r, r) in [-1, 1] -> latents (n, c, b, b): the mode, nothing is drawn."""
        made = self.vae.encode(images)
        z: Tensor = made.latents if hasattr(made, "latents") else made.latent_dist.mode()
        return (z - self._shift) * self._scale

    def decode(self, latents: Tensor) -> Tensor:
        """Latents (n, c, b, b) -> images (n, 3, r, r), nominally in [-1, 1]."""
        return self.vae.decode(latents / self._scale + self._shift, return_dict=False)[0]
