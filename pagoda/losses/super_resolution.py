"""Super-resolution diffusion with conditioning augmentation (CDM, arXiv 2106.15282, section 4)."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pagoda.diffusion.edm import loss_weight

ConditionalDenoiser = Callable[[Tensor, Tensor, Tensor | None, Tensor, Tensor], Tensor]
"""D(x, sigma, labels, condition, level) -> images, as ``SuperResolver.forward``."""


def super_resolution_loss(
    denoiser: ConditionalDenoiser,
    images: Tensor,
    labels: Tensor,
    sigma: Tensor,
    noise: Tensor,
    condition: Tensor,
    level: Tensor,
    sigma_data: float,
) -> Tensor:
    """E[ lambda(s) || D(x + s n; s | c, s_c) - x ||^2 ], the mean over pixels and batch.

    EDM's loss at the high resolution; the condition is the same image at the low one, up-sampled,
    with noise of size ``level``.

    Args:
        images: (n, c, h, w) clean images x.
        sigma: (n,) noise levels s.
        noise: (n, c, h, w) standard normal n.
        condition: (n, c, h, w), noise included.
        level: (n,) noise levels s_c of the condition.
    """
    s = sigma[:, None, None, None]
    denoised = denoiser(images + s * noise, sigma, labels, condition, level)
    error = (denoised - images).square().flatten(1).mean(1)
    return (loss_weight(sigma, sigma_data) * error).mean()
