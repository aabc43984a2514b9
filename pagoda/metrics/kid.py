"""Kernel distance: squared maximum mean discrepancy with a cubic kernel, unbiased.

    k(x, y) = (x . y / d + 1)^3
    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

(Binkowski et al. 2018; KID when the features are Inception's.) Being unbiased it can be negative.
The kernel changes with a common shift, so features are not simply centred: with a centre c,
``x = c + a``, ``y = c + b`` and ``h = (a.b + c.a + c.b) / d``::

    k(x, y) - k(c, c) = h (3 s^2 + h (3 s + h)),     s = c.c / d + 1

which loses no digits where c is large. All is float64, whatever the features' precision.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from pagoda.errors import PagodaError
from pagoda.metrics.arrays import Arrays, arrays_on
from pagoda.metrics.discrepancy import Kernel, centre_of, check_sides, discrepancy


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
    x, y = check_sides(x, y, 2)
    if subsets < 1 or not 2 <= subset_size <= min(len(x), len(y)):
        raise PagodaError(
            f"{subsets} subsets of {subset_size} cannot be drawn from {len(x)} and {len(y)} "
            f"images; use 1 subset or more, of 2 to {min(len(x), len(y))}"
        )
    rng = np.random.RandomState(seed)
    values = []
    n, m, centre = len(x), len(y), centre_of(x, y)
    with arrays_on(device) as arrays:
        kernel = _cubic(centre, arrays)
        for _ in range(subsets):
            part_x = x[rng.choice(n, subset_size, replace=False)]
            part_y = y[rng.choice(m, subset_size, replace=False)]
            values.append(discrepancy(part_x, part_y, centre, kernel, True, arrays))
    largest = max(map(abs, values)) or 1.0  # whose square may be beyond float64
    return float(np.mean(values)), largest * float(np.std(np.array(values) / largest))


def kernel_distance(x: np.ndarray, y: np.ndarray, device: str | None = None) -> float:
    """The full U-statistic over all rows of ``(n, d)`` and ``(m, d)``: no noise from subsets.

    Args:
        x, y: features.
        device: where torch does the arithmetic; None for numpy.

    Raises:
        PagodaError: if dimensions disagree, a side has fewer than 2 rows, or is not finite.
    """
    x, y = check_sides(x, y, 2)
    centre = centre_of(x, y)
    with arrays_on(device) as arrays:
        return discrepancy(x, y, centre, _cubic(centre, arrays), True, arrays)


def _cubic(centre: np.ndarray, arrays: Arrays) -> Kernel:
    held, scale = arrays.put(centre, np.float64), float(centre @ centre) / centre.size + 1

    def kernel(left: Any, right: Any) -> Any:
        h = left @ right.T
        h += (left @ held)[:, None]
        h += right @ held
        h /= centre.size
        values = h + 3 * scale
        values *= h
        values += 3 * scale**2
        values *= h
        return values

    return kernel
