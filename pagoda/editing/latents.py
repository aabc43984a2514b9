"""Where latents may go: norms, shells and the arcs between two latents."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pagoda.artifacts import Artifact
from pagoda.data.shards import open_rows

_LATENTS = 4096  # of a cache, whose norms are looked at


def norms(z: Tensor) -> Tensor:
    """(n,) norms of latents (n, ...) over sqrt(d): about 1 for standard normal ones."""
    return z.flatten(1).norm(dim=1) / math.sqrt(z[0].numel())


@dataclass(frozen=True)
class Shell:
    """Norms that latents are kept to, as multiples of sqrt(d).

    ``Shell(1, 1)`` is the sphere on which nearly all of the prior lies (PULSE, Menon et al. 2020;
    BIRD). Latents that were inverted lie further in, in a shell of their own.
    """

    low: float = 1.0
    high: float = 1.0

    def keep(self, z: Tensor) -> Tensor:
        """z min(max(|z|, low), high) / |z|, latent by latent; gradients pass through."""
        found = norms(z)
        scale = found.clamp(self.low, self.high) / found.clamp(min=1e-12)
        return z * scale.view(-1, *[1] * (z.ndim - 1))


def shell_of(latents: Tensor, outside: float = 0.01) -> Shell:
    """The shell of a set of latents (n, ...), without the ``outside`` lowest and highest norms."""
    low, high = torch.quantile(norms(latents.double()), latents.new_tensor(
        [outside, 1 - outside], dtype=torch.float64)).tolist()  # fmt: skip
    return Shell(low, high)


def cached_shell(latents: Artifact) -> Shell:
    """The shell of a run's inverted latents (a ``latents`` artifact)."""
    stored = open_rows(latents, "latents")[:_LATENTS].astype(np.float32)
    return shell_of(torch.from_numpy(stored * latents.card()["to_normalised"]))


def slerp(first: Tensor, second: Tensor, t: Tensor) -> Tensor:
    """Spherical interpolation (Shoemake 1985) of flattened latents.

    sin((1 - t) w) / sin(w) a + sin(t w) / sin(w) b, w the angle between a and b; where it is nearly
    0 or pi, the straight line. Norms between equal ends are theirs.

    Args:
        first, second: (n, ...).
        t: (n,) or one number a latent, in [0, 1].
    """
    a, b = first.flatten(1), second.flatten(1)
    cosine = (a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1)).clamp(min=1e-12)
    angle = cosine.clamp(-1, 1).arccos()
    sine, t = angle.sin(), t.to(a)
    flat = sine < 1e-4
    safe = torch.where(flat, torch.ones_like(sine), sine)
    left = torch.where(flat, 1 - t, ((1 - t) * angle).sin() / safe)
    right = torch.where(flat, t, (t * angle).sin() / safe)
    return (left[:, None] * a + right[:, None] * b).view_as(first)
