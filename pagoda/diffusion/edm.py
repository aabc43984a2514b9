"""EDM preconditioning and noise schedule (Karras et al. 2022, arXiv 2206.00364, table 1)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from pagoda.errors import PagodaError


@dataclass(frozen=True)
class Scalings:
    """D(x; s) = c_skip x + c_out F(c_in x; c_noise) (eq. 7)."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def scalings(sigma: Tensor, sigma_data: float) -> Scalings:
    """The coefficients of EDM preconditioning (table 1, "Network and preconditioning").

    c_skip = sd^2 / (s^2 + sd^2), c_out = s sd / sqrt(s^2 + sd^2), c_in = 1 / sqrt(s^2 + sd^2),
    c_noise = ln(s) / 4. All have the shape of ``sigma``.

    Raises:
        PagodaError: a noise level, on the CPU, or ``sigma_data`` is not positive and finite.
    """
    _check(sigma, sigma_data)
    total = sigma**2 + sigma_data**2
    return Scalings(
        c_skip=sigma_data**2 / total,
        c_out=sigma * sigma_data * total.rsqrt(),
        c_in=total.rsqrt(),
        c_noise=sigma.log() / 4,
    )


def ramp(at: Tensor, high: float, low: float, rho: float) -> Tensor:
    """Noise levels at places in [0, 1] of eq. 5's ramp, from ``high`` at 0 to ``low`` at 1."""
    first, last = high ** (1 / rho), low ** (1 / rho)
    return (first + at * (last - first)) ** rho


def loss_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """lambda(s) = (s^2 + sd^2) / (s sd)^2, which makes lambda c_out^2 = 1.

    Raises:
        PagodaError: as :func:`scalings`.
    """
    _check(sigma, sigma_data)
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def _check(sigma: Tensor, sigma_data: float) -> None:
    """The levels are looked at on the CPU only: a GPU would have to be waited for."""
    looked_at = sigma.device.type == "cpu" and not torch.compiler.is_compiling()
    if looked_at and not ((sigma > 0) & sigma.isfinite()).all():
        raise PagodaError("a noise level sigma is not positive and finite; 0 has no denoiser")
    if not 0 < sigma_data < math.inf:
        raise PagodaError(f"sigma_data = {sigma_data:g}; it must be positive and finite")
