"""Adversarial losses on logits l of "real" (PaGoDA eq. 3 and its code)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pagoda import distributed


def discriminator_loss(kind: str, real: Tensor, fake: Tensor) -> Tensor:
    """What the discriminator minimises; ``real`` and ``fake`` are logits.

    ``hinge``: E relu(1 - l_real) + E relu(1 + l_fake), as the official code.
    ``non_saturating``: E softplus(-l_real) + E softplus(l_fake), the cross-entropy of eq. 3.
    """
    if kind == "hinge":
        return F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_loss(kind: str, fake: Tensor) -> Tensor:
    """What the generator minimises.

    ``hinge``: -E l_fake. ``non_saturating``: E softplus(-l_fake).
    """
    return -fake.mean() if kind == "hinge" else F.softplus(-fake).mean()


def r1_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """E || d l / d x ||^2 on real images (Mescheder et al. 2018); gamma / 2 is the caller's."""
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def adaptive_weight(
    regression: Tensor,
    adversarial: Tensor,
    parameter: nn.Parameter,
    low: float,
    high: float,
    *,
    squared: bool = False,
) -> Tensor:
    """|| d L_rec / d theta_l || / || d L_adv / d theta_l ||, clamped to [low, high].

    theta_l is a late weight of the generator. The norms are plain, as in the official code, or
    squared, as the paper's section 5.1 prints them. The gradients are summed over the processes:
    each passes its share of both losses.
    """
    (g_rec,) = torch.autograd.grad(regression, parameter, retain_graph=True)
    (g_adv,) = torch.autograd.grad(adversarial, parameter, retain_graph=True)
    distributed.all_reduce_([g_rec, g_adv])
    ratio = g_rec.norm() / (g_adv.norm() + 1e-4)
    return (ratio.square() if squared else ratio).clamp(low, high)
