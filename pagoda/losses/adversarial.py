"""Adversarial losses on logits l of "real" (PaGoDA eq. 3 and its code)."""

from __future__ import annotations

from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel


def discriminator_losses(kind: str, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
    """What the discriminator minimises the sum of, from its logits of real and generated images.

    ``hinge``: E relu(1 - l_real) + E relu(1 + l_fake), as the official code.
    ``non_saturating``: E softplus(-l_real) + E softplus(l_fake), the cross-entropy of eq. 3.
    """
    if kind == "hinge":
        return F.relu(1 - real).mean(), F.relu(1 + fake).mean()
    return F.softplus(-real).mean(), F.softplus(fake).mean()


def generator_loss(kind: str, fake: Tensor) -> Tensor:
    """What the generator minimises.

    ``hinge``: -E l_fake. ``non_saturating``: E softplus(-l_fake).
    """
    return -fake.mean() if kind == "hinge" else F.softplus(-fake).mean()


def twice_differentiable() -> AbstractContextManager[None]:
    """What a penalty's logits are computed in: other kernels of attention differentiate once."""
    return sdpa_kernel(SDPBackend.MATH)


def r1_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """E || d l / d x ||^2 on real images (Mescheder et al. 2018); gamma / 2 is the caller's.

    The logits are made in :func:`twice_differentiable`.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()
