"""One step up a cascade: a super-resolution model on given images."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pagoda.diffusion.solver import edm_grid, sample
from pagoda.networks.super_resolution import SuperResolver, condition


def super_resolve(
    resolver: SuperResolver, low: Tensor, labels: Tensor | None, schedule: Mapping[str, float],
    steps: int, level: float, added: Tensor, start: Tensor,
) -> Tensor:  # fmt: skip
    """Enlarge images (n, 3, b, b) to (n, 3, r, r), by Heun's method.

    Args:
        resolver: the network.
        low: clamped to [-1, 1] first.
        level: of the noise ``added`` (n, 3, r, r) to what the network sees of them.
        start: (n, 3, r, r), standard normal.
    """
    low = low.clamp(-1, 1)
    at = low.new_full((len(low),), level)
    seen = condition(low, start.shape[-1], at, added)

    def denoiser(x: Tensor, sigma: Tensor, y: Tensor | None) -> Tensor:
        return resolver(x, sigma, y, seen, at)

    grid = edm_grid(steps, schedule["sigma_min"], schedule["sigma_max"], schedule["rho"])
    return sample(denoiser, start * schedule["sigma_max"], grid, labels)
