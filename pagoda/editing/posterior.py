"""Several answers to one observation: samples of p(z | y), or of a teacher's p(x | y).

Langevin dynamics walks the latents of the one-step generator (as CPS, Pal et al., CVPR 2025):
y = A(G(z)) + n, n ~ N(0, s^2), z ~ N(0, I). Diffusion posterior sampling (DPS, Chung et al. 2023)
bends the teacher's own way down, with the gradient through its denoiser.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from pagoda.data.noise import standard_normal
from pagoda.diffusion.solver import Denoiser
from pagoda.editing.search import Map


@dataclass(frozen=True)
class Langevin:
    """How the latents walk.

    Attributes:
        steps: of the walk, each an evaluation of the generator with its gradient.
        step: size h of a step.
        sigma: deviation of the noise that observations are believed to have, pixels in [-1, 1].
    """

    steps: int = 50
    step: float = 1.5e-4
    sigma: float = 0.1


def walk(
    generator: Map, observe: Callable[[Tensor], Tensor], seen: Tensor, labels: Tensor,
    start: Tensor, *, how: Langevin, keys: np.ndarray | None = None, seed: int = 0,
) -> Tensor:  # fmt: skip
    """Unadjusted Langevin dynamics: z <- z - h dU(z) + sqrt(2 h) n.

    U(z) = |A(G(z, c)) - y|^2 / (2 s^2) + |z|^2 / 2, so that in the limit z ~ p(z | y).

    Args:
        generator, observe, seen, labels, start, keys, seed: as of :func:`.search.optimise`.
        how: step and length.

    Returns:
        The last latents (n, 3, b, b).
    """
    of = np.arange(len(start)) if keys is None else np.asarray(keys)
    z = start.detach()
    for i in range(how.steps):
        with torch.enable_grad():
            at = z.detach().requires_grad_()
            off = (observe(generator(at, labels)) - seen).square().sum()
            energy = off / (2 * how.sigma**2) + at.square().sum() / 2
            slope = torch.autograd.grad(energy, at)[0]
        noise = standard_normal(seed, of, tuple(z.shape[1:]), f"walk-{i}")
        z = z - how.step * slope + math.sqrt(2 * how.step) * torch.from_numpy(noise).to(z)
    return z.detach()


def dps(
    denoiser: Denoiser, observe: Callable[[Tensor], Tensor], seen: Tensor, labels: Tensor | None,
    noise: Tensor, grid: Tensor, *, scale: float = 1.0, keys: np.ndarray | None = None,
    seed: int = 0,
) -> Tensor:  # fmt: skip
    """Diffusion posterior sampling with a denoiser D (algorithm 1 of DPS).

    From s down to t an ancestral step to x' with the estimate x0 = D(x; s), then::

        x <- x' - (1 + s^2) scale grad_x |A(x0) - y|^2 / |A(x0) - y|

    DPS has states of unit variance, x / sqrt(1 + s^2), in which the gradient is taken and the step
    made: hence the factor.

    Args:
        denoiser: the teacher; gradients flow through it.
        observe: A, of the teacher's own images.
        seen: y.
        labels: (n,), or None.
        noise: (n, 3, b, b) standard normal, where it begins.
        grid: noise levels, falling, with 0 at the end; one evaluation each.
        scale: zeta of the paper (0.3 to 1 there).
        keys, seed: of the noise of the steps.
    """
    of = np.arange(len(noise)) if keys is None else np.asarray(keys)
    levels = grid.tolist()
    x = noise * levels[0]
    for i, (s, t) in enumerate(pairwise(levels)):
        with torch.enable_grad():
            at = x.detach().requires_grad_()
            clean = denoiser(at, at.new_full((len(at),), s), labels)
            off = (observe(clean) - seen).flatten(1)
            length = off.norm(dim=1)
            slope = torch.autograd.grad(off.square().sum(), at)[0]
        up = math.sqrt(t * t * (s * s - t * t)) / s
        down = math.sqrt(max(0.0, t * t - up * up))
        x = clean.detach() + down / s * (x - clean.detach())
        if up:
            drawn = standard_normal(seed, of, tuple(x.shape[1:]), f"dps-{i}")
            x = x + up * torch.from_numpy(drawn).to(x)
        weight = scale * (1 + s * s) / length.detach().clamp(min=1e-6)
        x = x - weight.view(-1, 1, 1, 1) * slope
    return x.detach()
