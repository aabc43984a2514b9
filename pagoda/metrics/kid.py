"""Kernel distance: squared maximum mean discrepancy with a cubic kernel, unbiased.

    k(x, y) = (x . y / d + 1)^3
    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

(Binkowski et al. 2018; KID when the features are Inception's.) Being unbiased it can be negative.
"""

from __future__ import annotations

import numpy as np

from pagoda.errors import PagodaError
from pagoda.metrics.statistics import check_features

_BLOCK = 1 << 22  # kernel values held at a time: 32 MiB in float64


def kernel_distance_of_subsets(
    x: np.ndarray,
    y: np.ndarray,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
) -> tuple[float, float]:
    """Mean and standard deviation (ddof 0) of the estimate over random subsets.

    Subsets are drawn as torch-fidelity does, so equal seeds give equal subsets.

    Args:
        x, y: features ``(n, d)`` and ``(m, d)``.
        subsets: number of subsets.
        subset_size: rows drawn from each side, without replacement.
        seed: seed of the draws.

    Raises:
        PagodaError: if dimensions disagree, a side is smaller than a subset, or is not finite.
    """
    x, y = _pair(x, y)
    if not 2 <= subset_size <= min(len(x), len(y)):
        raise PagodaError(
            f"subsets of {subset_size} cannot be drawn from {len(x)} and {len(y)} images; "
            f"use 2 to {min(len(x), len(y))}"
        )
    rng = np.random.RandomState(seed)
    values = []
    for _ in range(subsets):
        part_x = x[rng.choice(len(x), subset_size, replace=False)]
        part_y = y[rng.choice(len(y), subset_size, replace=False)]
        values.append(_unbiased(part_x, part_y))
    return float(np.mean(values)), float(np.std(values))


def kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    """The full U-statistic over all rows of ``(n, d)`` and ``(m, d)``: no noise from subsets.

    Raises:
        PagodaError: if dimensions disagree, a side has fewer than 2 rows, or is not finite.
    """
    x, y = _pair(x, y)
    return _unbiased(x, y)


def _pair(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = (check_features(f).astype(np.float64, copy=False) for f in (x, y))
    if x.shape[1] != y.shape[1]:
        raise PagodaError(f"features are {x.shape[1]}-d and {y.shape[1]}-d; use one network")
    if min(len(x), len(y)) < 2:
        raise PagodaError("a kernel distance needs 2 or more images on each side")
    return x, y


def _unbiased(x: np.ndarray, y: np.ndarray) -> float:
    n, m = len(x), len(y)
    own_x = _kernel_sum(x, x) - float(np.sum(_cubic(np.einsum("ij,ij->i", x, x), x.shape[1])))
    own_y = _kernel_sum(y, y) - float(np.sum(_cubic(np.einsum("ij,ij->i", y, y), x.shape[1])))
    return own_x / (n * (n - 1)) + own_y / (m * (m - 1)) - 2 * _kernel_sum(x, y) / (n * m)


def _kernel_sum(x: np.ndarray, y: np.ndarray) -> float:
    step = max(1, _BLOCK // len(y))
    parts = (x[i : i + step] @ y.T for i in range(0, len(x), step))
    return float(sum(np.sum(_cubic(part, x.shape[1])) for part in parts))


def _cubic(products: np.ndarray, dim: int) -> np.ndarray:
    base = products / dim + 1.0
    return np.asarray(base * base * base)
