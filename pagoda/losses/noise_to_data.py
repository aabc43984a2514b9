"""Noise-to-data distillation, the baseline that PaGoDA compares with (eq. 1)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F


def noise_to_data_loss(generated: Tensor, teacher_samples: Tensor) -> Tensor:
    """L_dstl = E_z || x_teacher(z) - G(z) ||^2: the teacher's ODE sample is the target.

    Both (n, c, h, w), from the same latents z; the mean over pixels and batch.
    """
    return F.mse_loss(generated, teacher_samples)
