"""A latent whose image is seen as y: z* = argmin_z |A(G(z, c)) - y|^2 (PaGoDA, section 5.2).

By Adam, whose learning rate and noise follow the projector of StyleGAN2-ADA (Karras et al. 2020);
latents stay in a shell as in PULSE, and the best of each search is kept, not the last.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pagoda.data.noise import standard_normal
from pagoda.editing.latents import Shell
from pagoda.errors import PagodaError

Map = Callable[[Tensor, Tensor], Tensor]
"""Latents (n, 3, b, b) and class numbers (n,) -> images (n, 3, r, r) in [-1, 1]."""


@dataclass(frozen=True)
class Search:
    """How a latent is looked for.

    Attributes:
        steps: evaluations of the generator with their gradient, a start.
        lr: of Adam, at its highest.
        ramp_up: first part of the steps, in which the rate rises from 0.
        ramp_down: last part, in which it falls along a cosine.
        noise: deviation of the noise added to the latent, at first; it falls as the square.
        noise_until: part of the steps at which it is gone.
    """

    steps: int = 100
    lr: float = 0.1
    ramp_up: float = 0.05
    ramp_down: float = 0.25
    noise: float = 0.05
    noise_until: float = 0.75

    def __post_init__(self) -> None:
        if self.steps < 1 or not 0 < self.lr < math.inf:
            raise PagodaError(
                f"a search of {self.steps} steps with lr = {self.lr:g}; it needs 1 step or more "
                "and a learning rate above 0"
            )

    def rate(self, i: int) -> float:
        """Learning rate of step i."""
        done = i / self.steps
        down = min(1.0, (1 - done) / self.ramp_down)
        return self.lr * (0.5 - 0.5 * math.cos(math.pi * down)) * min(1.0, (done + 1 / self.steps)
                                                                      / self.ramp_up)  # fmt: skip

    def strength(self, i: int) -> float:
        """Deviation of the noise of step i; none in the first, which looks at the start itself."""
        left = max(0.0, 1 - i / self.steps / self.noise_until)
        return self.noise * left * left if i else 0.0


@dataclass(frozen=True)
class Found:
    """The best of each search: latents, their images, and mean squared error of what is seen."""

    latents: Tensor
    images: Tensor
    errors: Tensor


@torch.enable_grad()
def optimise(
    generator: Map, observe: Callable[[Tensor], Tensor], seen: Tensor, labels: Tensor,
    start: Tensor, *, search: Search, shell: Shell | None = None, keys: np.ndarray | None = None,
    seed: int = 0,
) -> Found:  # fmt: skip
    """Minimise |A(G(z, c)) - y|^2 over z, image by image.

    Args:
        generator: G; gradients flow through it.
        observe: A.
        seen: y, (n, ...).
        labels: c, (n,).
        start: (n, 3, b, b), latents to begin at; in their shell, the answer is no worse.
        search: how.
        shell: norms that latents are kept to; None: any.
        keys: (n,) whole numbers, of the noise of each search; None: 0, 1, ...
        seed: of the noise.
    """
    keep = (lambda z: z) if shell is None else shell.keep
    of = np.arange(len(start)) if keys is None else np.asarray(keys)
    z = keep(start).detach().clone().requires_grad_()
    adam = torch.optim.Adam([z], lr=search.lr, betas=(0.9, 0.999))
    best: Found | None = None
    for i in range(search.steps):
        strength, at = search.strength(i), z
        if strength:
            noise = standard_normal(seed, of, tuple(z.shape[1:]), f"search-{i}")
            at = z + strength * torch.from_numpy(noise).to(z)
        at = keep(at)
        images = generator(at, labels)
        errors = (observe(images) - seen).square().flatten(1).mean(1)
        best = _better(best, Found(at.detach(), images.detach(), errors.detach()))
        adam.param_groups[0]["lr"] = search.rate(i)
        adam.zero_grad()
        errors.sum().backward()
        adam.step()
        with torch.no_grad():
            z.copy_(keep(z))
    assert best is not None
    return best


def best_of(starts: int, found: Found) -> Found:
    """The best of every ``starts`` searches in a row: of n starts, n / starts."""
    rows = found.errors.view(-1, starts).argmin(1)
    rows = rows + starts * torch.arange(len(rows), device=rows.device)
    return Found(found.latents[rows], found.images[rows], found.errors[rows])


def _better(old: Found | None, new: Found) -> Found:
    if old is None:
        return new
    won = new.errors < old.errors

    def chosen(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(won.view(-1, *[1] * (a.ndim - 1)), a, b)

    return Found(chosen(new.latents, old.latents), chosen(new.images, old.images),
                 chosen(new.errors, old.errors))  # fmt: skip
