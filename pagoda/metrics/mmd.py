"""Maximum mean discrepancy with a Gaussian kernel: CMMD where the features are CLIP's.

    k(x, y) = exp(-|x - y|^2 / (2 sigma^2))
    MMD^2 = mean k(x_i, x_j) + mean k(y_i, y_j) - 2 mean k(x_i, y_j)

(Gretton et al. 2012, eqs. 3 and 5; Jayasumana et al. 2024 use sigma = 10, times 1000, on
unit-length embeddings of CLIP ViT-L/14 at 336 pixels.) The V-statistic, theirs, keeps the pairs
``i = j`` and is never negative; the U-statistic leaves them out and has no bias.

With unit vectors and sigma = 10 every kernel value is near 1, and three means near 1 that are
subtracted lose their digits. ``k - 1`` is summed instead: the ones cancel exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pagoda.errors import PagodaError
from pagoda.metrics.arrays import Arrays, arrays_on, tiles
from pagoda.metrics.statistics import check_features

_TILE = 1024  # rows and columns of a tile of kernel values: 8 MiB in float64


def gaussian_mmd(
    x: np.ndarray,
    y: np.ndarray,
    sigma: float = 10.0,
    scale: float = 1000.0,
    unbiased: bool = False,
    device: str | None = None,
) -> float:
    """``scale`` times the squared discrepancy of features ``(n, d)`` and ``(m, d)``, in float64.

    Args:
        x, y: features; for CMMD, divided by their lengths.
        sigma: width of the kernel, in the features' units.
        scale: factor for readability.
        unbiased: the U-statistic instead of the V-statistic.
        device: where torch does the arithmetic; None for numpy.

    Raises:
        PagodaError: if dimensions disagree, a side has too few rows, or anything is not finite.
    """
    x, y = (check_features(f) for f in (x, y))
    if x.shape[1] != y.shape[1]:
        raise PagodaError(f"features are {x.shape[1]}-d and {y.shape[1]}-d; use one network")
    n, m = len(x), len(y)
    if unbiased and min(n, m) < 2:
        raise PagodaError("an unbiased discrepancy needs 2 or more images on each side")
    centre = x.mean(axis=0, dtype=np.float64)
    less = int(unbiased)
    with arrays_on(device) as arrays:
        x, y = x - centre, y - centre
        own_x = _own_sum(x, sigma, arrays) / (n * (n - less))
        own_y = _own_sum(y, sigma, arrays) / (m * (m - less))
        cross = sum(
            _tile_sum(arrays.put(x[i], np.float64), arrays.put(y[j], np.float64), sigma, arrays)
            for i in tiles(n, _TILE)
            for j in tiles(m, _TILE)
        )
    return scale * (own_x + own_y - 2 * cross / (n * m))


def _own_sum(x: np.ndarray, sigma: float, arrays: Arrays) -> float:
    """Sum of ``k - 1`` over all pairs of one set; a point with itself adds 0."""
    total, slices = 0.0, tiles(len(x), _TILE)
    for i, rows in enumerate(slices):
        left = arrays.put(x[rows], np.float64)
        total += _tile_sum(left, left, sigma, arrays)
        for columns in slices[:i]:
            total += 2 * _tile_sum(left, arrays.put(x[columns], np.float64), sigma, arrays)
    return total


def _tile_sum(left: Any, right: Any, sigma: float, arrays: Arrays) -> float:
    found = left @ right.T
    found *= -2.0
    found += arrays.row_products(left, left)[:, None]
    found += arrays.row_products(right, right)
    found *= -0.5 / sigma**2
    if left is right:
        diagonal = np.arange(len(found))
        found[diagonal, diagonal] = 0.0
    return float(arrays.expm1(found).sum())
