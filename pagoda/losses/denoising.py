"""Stage 1: EDM denoising (Karras et al. 2022, eq. 2 and 8)."""

from __future__ import annotations

from torch import Tensor

from pagoda.diffusion.edm import loss_weight
from pagoda.diffusion.solver import Denoiser


def denoising_loss(
    denoiser: Denoiser,
    images: Tensor,
    labels: Tensor,
    sigma: Tensor,
    noise: Tensor,
    sigma_data: float,
) -> Tensor:
    """E[ lambda(s) || D(x + s n; s) - x ||^2 ], the mean over pixels and batch.

    Args:
        images: (n, c, h, w) clean images x.
        sigma: (n,) noise levels s.
        noise: (n, c, h, w) standard normal n.
    """
    s = sigma[:, None, None, None]
    error = (denoiser(images + s * noise, sigma, labels) - images).square().flatten(1).mean(1)
    return (loss_weight(sigma, sigma_data) * error).mean()
