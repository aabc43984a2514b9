"""Squared maximum mean discrepancy under any kernel, in float64, tile by tile.

    MMD^2 = mean k(x_i, x_j) + mean k(y_i, y_j) - 2 mean k(x_i, y_j)

(Gretton et al. 2012, eqs. 3 and 5.) The V-statistic keeps the pairs ``i = j`` of one set; the
U-statistic leaves them out and has no bias. Features are given about a centre, and a kernel less
its value there: what all three means have in common cancels on paper, not in rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.arrays import Arrays, tiles
from pagoda.evaluation.metrics.statistics import check_features

_TILE = 1024  # rows and columns of a tile of kernel values: 8 MiB

Kernel = Callable[[Any, Any], Any]
"""Centred rows (n, d) and (m, d) -> kernel values less a constant, (n, m)."""


def check_sides(x: np.ndarray, y: np.ndarray, least: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sets of features of one dimension, with ``least`` rows or more each."""
    x, y = (check_features(f) for f in (x, y))
    if x.shape[1] != y.shape[1]:
        raise PagodaError(f"features are {x.shape[1]}-d and {y.shape[1]}-d; use one network")
    if min(len(x), len(y)) < least:
        raise PagodaError(f"a discrepancy without bias needs {least} or more images on each side")
    return x, y


def centre_of(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Middle of two sets' means, float64."""
    return np.asarray((x.mean(axis=0, dtype=np.float64) + y.mean(axis=0, dtype=np.float64)) / 2)


def discrepancy(
    x: np.ndarray,
    y: np.ndarray,
    centre: np.ndarray,
    kernel: Kernel,
    unbiased: bool,
    arrays: Arrays,
) -> float:
    """The squared discrepancy of ``(n, d)`` and ``(m, d)``, U-statistic if ``unbiased``, else V.

    ``kernel`` takes rows about ``centre`` (d,), in float64. The constant that it leaves out is its
    value of a row and itself in the V-statistic.
    """
    n, m, less = len(x), len(y), int(unbiased)

    def rows(features: np.ndarray, part: slice) -> Any:
        return arrays.put(features[part] - centre, np.float64)

    def own(features: np.ndarray) -> float:
        total, slices = 0.0, tiles(len(features), _TILE)
        for i, part in enumerate(slices):
            left = rows(features, part)
            values = kernel(left, left)  # numpy takes half the work where both are one matrix
            diagonal = np.arange(len(left))
            values[diagonal, diagonal] = 0.0
            total += float(values.sum())
            for other in slices[:i]:
                total += 2 * float(kernel(left, rows(features, other)).sum())
        return total

    with np.errstate(over="ignore", invalid="ignore"):
        cross = sum(
            float(kernel(left, rows(y, j)).sum())
            for i in tiles(n, _TILE)
            for left in [rows(x, i)]
            for j in tiles(m, _TILE)
        )
        found = own(x) / (n * (n - less)) + own(y) / (m * (m - less)) - 2 * cross / (n * m)
    if not np.isfinite(found):
        raise PagodaError("the kernel of these features is beyond all numbers; check their network")
    return found
