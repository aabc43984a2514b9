"""The probability-flow ODE dx/ds = (x - D(x; s)) / s, solved in both directions.

Going down from sigma_max samples; going up from a clean image inverts (Karras et al. 2022,
algorithm 1 without churn; PaGoDA section 3.1 calls the way up "DDIM inversion").
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from pagoda.diffusion.edm import ramp
from pagoda.errors import PagodaError

Denoiser = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""D(x, sigma, labels): x (n, c, h, w), sigma (n,), labels (n,) -> (n, c, h, w)."""


def edm_grid(steps: int, sigma_min: float, sigma_max: float, rho: float) -> Tensor:
    """The EDM grid (eq. 5) of ``steps`` noise levels, descending, with a trailing 0.

    s_i = (smax^(1/rho) + i / (steps - 1) (smin^(1/rho) - smax^(1/rho)))^rho; float64,
    shape (steps + 1,).

    Raises:
        PagodaError: fewer than two levels, no whole number of them, or what they follow from is
            not positive, finite and in order.
    """
    ordered = 0 < sigma_min < sigma_max < math.inf and 0 < rho < math.inf
    try:
        steps = operator.index(steps)
    except TypeError as error:
        raise PagodaError(f"{steps!r} noise levels; 2 or more are needed, all whole") from error
    if steps < 2 or not ordered:
        raise PagodaError(
            f"a grid of {steps} noise levels from sigma_min = {sigma_min:g} to sigma_max = "
            f"{sigma_max:g} with rho = {rho:g}; it needs 2 levels or more, 0 < sigma_min < "
            "sigma_max and rho > 0, all finite"
        )
    at = torch.arange(steps, dtype=torch.float64) / (steps - 1)
    levels = ramp(at, sigma_max, sigma_min, rho)
    return torch.cat([levels, torch.zeros(1, dtype=torch.float64)])


def nfe(
    steps: int, solver: str, *, inverse: bool = False, guidance: float = 1.0,
    guided_levels: tuple[float, float] | None = None, grid: Tensor | None = None,
) -> int:  # fmt: skip
    """Network evaluations of one trajectory.

    Down: Heun 2 steps - 1 (the last step, to 0, is Euler), Euler steps. Up, sigma_min to
    sigma_max: one step fewer and no Euler step, Heun 2 (steps - 1), Euler steps - 1. Guidance
    takes twice as many, or, down a ``grid`` with ``guided_levels``, one more at each of these.
    """
    per_step = 2 if solver == "heun" else 1
    slopes = per_step * (steps - 1) + (0 if inverse else 1)
    if guidance == 1:
        return slopes
    if guided_levels is None or grid is None:
        return 2 * slopes
    low, high = guided_levels
    seen = [grid[0].item(), *(s for s in grid[1:-1].tolist() for _ in range(per_step))]
    return slopes + sum(low < s <= high for s in seen)


def guided(
    denoiser: Denoiser,
    weight: float | Tensor,
    *,
    guide: Denoiser | None = None,
    levels: tuple[float, float] | None = None,
) -> Denoiser:
    """The denoiser of p(x | c)^w p(x)^(1 - w): w D(x; s, c) + (1 - w) D(x; s).

    PaGoDA section 4 (there omega); scores are affine in the denoiser, so that theirs is mixed
    likewise.

    Args:
        denoiser: its network must know images without a class, unless there is a ``guide``.
        weight: w, or one for each image, (n,). The number 1 is the denoiser itself: none.
        guide: w D(x; s, c) + (1 - w) D_g(x; s, c) with this weaker denoiser D_g of the same class
            instead (autoguidance, Karras et al. 2024, arXiv 2406.02507).
        levels: (low, high]: only noise levels that are guided (Kynkaanniemi et al. 2024, arXiv
            2404.07724); all images of a call have one level then. None: all.
    """
    if isinstance(weight, float | int) and weight == 1:
        return denoiser

    def mixed(x: Tensor, sigma: Tensor, labels: Tensor | None) -> Tensor:
        if levels is not None and not levels[0] < sigma[0].item() <= levels[1]:
            return denoiser(x, sigma, labels)
        w = weight[:, None, None, None].to(x) if isinstance(weight, Tensor) else weight
        other = denoiser(x, sigma, None) if guide is None else guide(x, sigma, labels)
        return w * denoiser(x, sigma, labels) + (1 - w) * other

    return mixed


def clamped(denoiser: Denoiser) -> Denoiser:
    """The denoiser, its images clamped to [-1, 1]."""
    return lambda x, sigma, labels: denoiser(x, sigma, labels).clamp(-1, 1)


def integrate(
    denoiser: Denoiser, x: Tensor, levels: Tensor, labels: Tensor | None, solver: str
) -> Tensor:
    """Integrate the ODE along ``levels``, rising or falling.

    Euler: x' = x + (t - s) d(x, s), d = (x - D(x; s)) / s. Heun adds the trapezoidal correction
    at t unless t = 0, where the slope is undefined.

    Args:
        x: (n, c, h, w), the state at ``levels[0]``; its dtype is the state's dtype.
        levels: (k,) noise levels; only the last may be 0.
        solver: ``"euler"`` (order 1) or ``"heun"`` (order 2).

    Returns:
        The state at ``levels[-1]``.

    Raises:
        PagodaError: a level is negative or not finite, or 0 before the last; another solver.
    """
    if solver not in ("euler", "heun"):
        raise PagodaError(f"solver = {solver!r}; it must be 'euler' or 'heun'")
    if not all(0 < s < math.inf for s in levels[:-1].tolist()) or not 0 <= levels[-1] < math.inf:
        raise PagodaError("noise levels must be positive and finite; only the last may be 0")
    for s, t in pairwise(levels.tolist()):
        slope = (x - denoiser(x, x.new_full((len(x),), s), labels)) / s
        ahead = x + (t - s) * slope
        if solver == "heun" and t > 0:
            slope_ahead = (ahead - denoiser(ahead, x.new_full((len(x),), t), labels)) / t
            ahead = x + (t - s) * (slope + slope_ahead) / 2
        x = ahead
    return x


def sample(
    denoiser: Denoiser, x: Tensor, grid: Tensor, labels: Tensor | None, solver: str = "heun"
) -> Tensor:
    """Latents at sigma_max -> images. ``x`` is sigma_max times standard normal noise."""
    return integrate(denoiser, x, grid, labels, solver)


def invert(
    denoiser: Denoiser, x: Tensor, grid: Tensor, labels: Tensor | None, solver: str = "heun"
) -> Tensor:
    """Images -> latents at sigma_max.

    ``x`` is taken as the state at the smallest non-zero level of ``grid``. A clean image carries
    no noise of that size; callers may add some first.
    """
    return integrate(denoiser, x, grid[:-1].flip(0), labels, solver)
