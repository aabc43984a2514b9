"""How close inverted latents are to the prior N(0, I)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.image_pairs import check_images


@dataclass(frozen=True)
class Normality:
    """Moments and distances of latents; a standard normal has 0, 1, 0, 3 and distances near 0.

    Mean, deviation, skewness and kurtosis (not in excess) are of all entries; ``ks_entries`` is
    their Kolmogorov-Smirnov distance to N(0, 1), in [0, 1], and ``ks_norms`` that of the squared
    norms to the chi-square distribution; ``neighbour_correlation`` is of horizontally adjacent
    entries, 0 if these are independent.
    """

    mean: float
    std: float
    skewness: float
    kurtosis: float
    ks_entries: float
    ks_norms: float
    neighbour_correlation: float


def normality(latents: np.ndarray) -> Normality:
    """Compare latents (n, c, h, w) with the standard normal prior.

    The Kolmogorov-Smirnov distance is sup_x |F_n(x) - F(x)|. With d = c h w, the squared norm of a
    standard normal latent follows the chi-square distribution of d degrees of freedom: latents of
    clean images, which carry no noise, fall inside that shell.

    Raises:
        PagodaError: for another shape, NaN or infinity, or latents that are all equal.
    """
    import torch  # takes seconds, so only where latents are measured

    latents = check_images(latents, "latents").astype(np.float64)
    z = latents.reshape(len(latents), -1)
    flat = z.ravel()
    mean, std = float(flat.mean()), float(flat.std())
    a, b = latents[..., :-1].ravel(), latents[..., 1:].ravel()
    if not (std > 0 and a.size and np.ptp(a) > 0 and np.ptp(b) > 0):
        raise PagodaError("latents without any spread have no distribution; check what made them")
    unit = (flat - mean) / std
    half = torch.tensor(z.shape[1] / 2, dtype=torch.float64)
    norms = torch.from_numpy(np.square(z).sum(1) / 2)
    return Normality(
        mean=mean,
        std=std,
        skewness=float((unit**3).mean()),
        kurtosis=float((unit**4).mean()),
        ks_entries=ks_distance(torch.special.ndtr(torch.from_numpy(flat)).numpy()),
        ks_norms=ks_distance(torch.special.gammainc(half, norms).numpy()),
        neighbour_correlation=float(np.corrcoef(a, b)[0, 1]),
    )


def ks_distance(probabilities: np.ndarray) -> float:
    """Kolmogorov-Smirnov distance, given the distribution function at each of the values."""
    p = np.sort(probabilities)
    steps = np.arange(len(p) + 1) / len(p)
    return float(max((steps[1:] - p).max(), (p - steps[:-1]).max()))
