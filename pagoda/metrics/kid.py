"""Kernel distance: squared maximum mean discrepancy with a cubic kernel, unbiased.

    k(x, y) = (x . y / d + 1)^3
    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

(Binkowski et al. 2018; KID when the features are Inception's.) Being unbiased it can be negative.
Kernel values have the precision of the features (float32 unless either set is float64), as in
clean-fid and torch-fidelity; their sums are float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pagoda.errors import PagodaError
from pagoda.metrics.arrays import Arrays, arrays_on, tiles, working_type
from pagoda.metrics.statistics import check_features

_TILE = 2048  # rows and columns of a tile of kernel values


def kernel_distance_of_subsets(
    x: np.ndarray,
    y: np.ndarray,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
    device: str | None = None,
) -> tuple[float, float]:
    """Mean and standard deviation (ddof 0) of the estimate over random subsets.

    Subsets are drawn as torch-fidelity does, so equal seeds give equal subsets.

    Args:
        x, y: features ``(n, d)`` and ``(m, d)``.
        subsets: number of subsets.
        subset_size: rows drawn from each side, without replacement.
        seed: seed of the draws.
        device: where torch does the arithmetic; None for numpy.

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
    n, m = len(x), len(y)
    with arrays_on(device) as arrays:
        held_x, held_y = (arrays.put(f, f.dtype.type) for f in (x, y))
        for _ in range(subsets):
            part_x = held_x[rng.choice(n, subset_size, replace=False)]
            part_y = held_y[rng.choice(m, subset_size, replace=False)]
            values.append(_unbiased(part_x, part_y, arrays))
    return float(np.mean(values)), float(np.std(values))


def kernel_distance(x: np.ndarray, y: np.ndarray, device: str | None = None) -> float:
    """The full U-statistic over all rows of ``(n, d)`` and ``(m, d)``: no noise from subsets.

    Args:
        x, y: features.
        device: where torch does the arithmetic; None for numpy.

    Raises:
        PagodaError: if dimensions disagree, a side has fewer than 2 rows, or is not finite.
    """
    x, y = _pair(x, y)
    with arrays_on(device) as arrays:
        return _unbiased(arrays.put(x, x.dtype.type), arrays.put(y, y.dtype.type), arrays)


def _pair(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    x, y = (check_features(f) for f in (x, y))
    if x.shape[1] != y.shape[1]:
        raise PagodaError(f"features are {x.shape[1]}-d and {y.shape[1]}-d; use one network")
    if min(len(x), len(y)) < 2:
        raise PagodaError("a kernel distance needs 2 or more images on each side")
    dtype = working_type(x, y)
    return x.astype(dtype, copy=False), y.astype(dtype, copy=False)


def _unbiased(x: Any, y: Any, arrays: Arrays) -> float:
    n, m = len(x), len(y)
    own = _own_sum(x, arrays) / (n * (n - 1)) + _own_sum(y, arrays) / (m * (m - 1))
    cross = 0.0
    for columns in tiles(m, _TILE):
        right = y[columns]
        for rows in tiles(n, _TILE):
            cross += _cubes(x[rows] @ right.T, x.shape[1], arrays)
    return own - 2 * cross / (n * m)


def _own_sum(x: Any, arrays: Arrays) -> float:
    """Sum of ``k(x_i, x_j)`` over ``i != j``, by symmetry from half of the tiles."""
    total = 0.0
    slices = tiles(len(x), _TILE)
    for i, columns in enumerate(slices):
        right = x[columns]
        products = right @ right.T  # numpy takes half the work where both are one matrix
        diagonal = np.arange(columns.stop - columns.start)
        products[diagonal, diagonal] = -x.shape[1]  # a kernel value of 0
        total += _cubes(products, x.shape[1], arrays)
        for rows in slices[:i]:
            total += 2 * _cubes(x[rows] @ right.T, x.shape[1], arrays)
    return total


def _cubes(products: Any, dim: int, arrays: Arrays) -> float:
    """Sum of ``(p / dim + 1)^3``; destroys ``products``."""
    products *= 1.0 / dim
    products += 1.0
    return float(arrays.get(arrays.row_products(products * products, products)).sum(dtype=float))
