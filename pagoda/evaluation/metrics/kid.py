"""Kernel distance: squared maximum mean discrepancy with a cubic kernel, unbiased.

    k(x, y) = (x . y / d + 1)^3
    MMD^2 = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

(Binkowski et al. 2018; KID when the features are Inception's.) Being unbiased it can be negative.
The kernel changes with a common shift, so features are not simply centred: with a centre c,
``x = c + a``, ``y = c + b`` and ``h = (a.b + c.a + c.b) / d``::

    k(x, y) - k(c, c) = h (3 s^2 + h (3 s + h)),     s = c.c / d + 1

which loses no digits where c is large. Sums are float64. So are the products ``a.b``, but
for subsets of float32 features whose rounding cannot be seen beside the deviation over subsets.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.arrays import Arrays, arrays_on, tiles, working_type
from pagoda.evaluation.metrics.base import Comparison, Metric, Sample, Settings
from pagoda.evaluation.metrics.discrepancy import Kernel, centre_of, check_sides, discrepancy
from pagoda.rows import Row

_SEEN = 0.01  # of the deviation over subsets: rounding that may reach it calls for float64
_UNIT = 2.0**-24  # rounding of float32
_HELD = 4096  # rows of the largest subset whose products are held: 64 MiB
_ROWS = 128  # of kernel values worked on together: 1 MiB for subsets of 1000

Draws = Sequence[Sequence[np.ndarray]]
"""Rows of both sets in each subset."""


def kernel_distance_of_subsets(
    x: np.ndarray,
    y: np.ndarray,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 2020,
    device: str | None = None,
) -> tuple[float, float]:
    """Mean and standard deviation (ddof 0) of the estimate over random subsets.

    ``subset_size`` rows are drawn from each side, without replacement, as torch-fidelity does, so
    equal seeds give equal subsets. torch does the arithmetic on a ``device``, else numpy.

    Raises:
        PagodaError: if dimensions disagree, a side is smaller than a subset, or is not finite.
    """
    x, y = check_sides(x, y, 2)
    if subsets < 1 or not 2 <= subset_size <= min(len(x), len(y)):
        raise PagodaError(
            f"{subsets} subsets of {subset_size} cannot be drawn from {len(x)} and {len(y)} "
            f"images; use 1 subset or more, of 2 to {min(len(x), len(y))}"
        )
    rng, sides, size = np.random.RandomState(seed), (len(x), len(y)), subset_size
    draws = [[rng.choice(n, size, replace=False) for n in sides] for _ in range(subsets)]
    centre = centre_of(x, y)
    with arrays_on(device) as arrays:
        values = _from_single_products(x, y, draws, arrays)
        if values is None:
            kernel = _cubic(centre, arrays)
            values = [discrepancy(x[i], y[j], centre, kernel, True, arrays) for i, j in draws]
    largest = max(map(abs, values)) or 1.0  # whose square may be beyond float64
    return float(np.mean(values)), largest * float(np.std(np.array(values) / largest))


def kernel_distance(x: np.ndarray, y: np.ndarray, device: str | None = None) -> float:
    """The full U-statistic over all rows of ``(n, d)`` and ``(m, d)``: no noise from subsets."""
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


def _from_single_products(
    x: np.ndarray, y: np.ndarray, draws: Draws, arrays: Arrays
) -> list[float] | None:
    """Estimates of subsets by float32 products; None where these may be seen, or are not finite."""
    if working_type(x, y) != np.float32 or len(draws) < 2 or len(draws[0][0]) > _HELD:
        return None
    centre = centre_of(x, y).astype(np.float32).astype(np.float64)  # differences to it round least
    with np.errstate(over="ignore", invalid="ignore"):
        sides = _Side(x, centre), _Side(y, centre)
        found = [_estimate(*sides, i, j, centre, arrays) for i, j in draws]
        values, errors = (list(column) for column in zip(*found, strict=True))
        return values if max(errors) <= _SEEN * np.std(values) else None


class _Side:
    """Float32 features about a centre c: c.a and |a|^2 of each row a in float64, (n,)."""

    def __init__(self, features: np.ndarray, centre: np.ndarray) -> None:
        self._features, self._centre = features, centre.astype(np.float32)
        self.shift, self.square = np.empty(len(features)), np.empty(len(features))
        for part in tiles(len(features), 2 * _ROWS):
            rows = features[part] - centre
            self.shift[part], self.square[part] = rows @ centre, np.einsum("ij,ij->i", rows, rows)

    def rows(self, drawn: np.ndarray) -> np.ndarray:
        """Centred rows, float32."""
        found = np.asarray(self._features[drawn], np.float32)
        found -= self._centre
        return found


def _estimate(
    x: _Side, y: _Side, i: np.ndarray, j: np.ndarray, centre: np.ndarray, arrays: Arrays
) -> tuple[float, float]:
    """The estimate of a subset of n rows each, and how far rounding may have moved it.

    ``k - k(c, c) = 3 s^2 h + h^2 (3 s + h)``. Means of the first term need no products of pairs
    (c.a and c.b cancel on paper) and take the rounding u of a row. Those of the second take that of
    a product, ``(sqrt(d) + 2) u |a| |b|`` (Higham and Mary 2019), here as if all had one sign; the
    mean of ``|h| |a| |b|`` is bounded by Cauchy and Schwarz.
    """
    n, dim, scale = len(i), centre.size, float(centre @ centre) / centre.size + 1
    drawn = x.rows(i), y.rows(j)
    sums = [rows.sum(axis=0, dtype=np.float64) for rows in drawn]
    squares = [x.square[i], y.square[j]]
    own = sum(float(s @ s) - float(q.sum()) for s, q in zip(sums, squares, strict=True))
    value = own / (n * (n - 1)) - 2 * float(sums[0] @ sums[1]) / n**2
    length = sum(float(np.sqrt(q.mean())) for q in squares)
    error = 2 * _UNIT * length * (sum(float(np.linalg.norm(s)) for s in sums) + length) / n
    value, error = 3 * scale**2 / dim * value, 3 * scale**2 / dim * error
    held = [arrays.put(rows, np.float32) for rows in drawn]
    shifts = [arrays.put(s, np.float64) for s in (x.shift[i], y.shift[j])]
    unit = 3 * (np.sqrt(dim) + 2) * _UNIT / dim
    for a, b, weight, pairs in ((0, 0, 1, n * (n - 1)), (1, 1, 1, n * (n - 1)), (0, 1, -2, n**2)):
        second, third = (v / pairs for v in _powers(held[a], held[b], shifts[a], shifts[b], arrays))
        value += weight * (3 * scale * second + third)
        typical = np.sqrt(second * squares[a].mean() * squares[b].mean())
        largest = second * np.sqrt(squares[a].max() * squares[b].max())
        error += abs(weight) * unit * float(2 * scale * typical + largest)
    return value, error


def _powers(a: Any, b: Any, shift: Any, other: Any, arrays: Arrays) -> tuple[float, float]:
    """Sums of ``h^2`` and ``h^3`` over pairs of rows, none of a row with itself."""
    products, own = a @ b.T, a is b  # numpy takes half the work where both are one matrix
    second = third = 0.0
    for part in tiles(len(a), _ROWS):
        columns = slice(0, part.stop if own else len(b))
        h = shift[part, None] + products[part, columns]
        h += other[columns]
        if own:  # the pairs below the diagonal, for both
            i, j = np.triu_indices(len(h))
            h[i, part.start + j] = 0.0
        squares = h * h
        second += float(squares.sum())
        third += float(arrays.row_products(squares, h).sum())
    dim, times = a.shape[1], 1 + own
    return times * second / dim**2, times * third / dim**3


def _kd(c: Comparison) -> Row:
    real, count, size = c.real.kept, c.settings.subsets, c.settings.subset_size
    value, sd = kernel_distance_of_subsets(real, c.made.features, count, size, device=c.device)
    return c.row(
        "kid" if c.inception else "kd", value, len(real), "kid", "kd",
        sd=sd if count > 1 else None, s=count, m=size,
    )  # fmt: skip


def _check(n: int, real: Sample, settings: Settings) -> None:
    have = min(n, len(real.kept))
    if settings.subsets < 1 or not 2 <= settings.subset_size <= have:
        raise PagodaError(
            f"{settings.subsets} subsets of {settings.subset_size} cannot be drawn from {have} "
            "images; change --kid-subset-size, which changes the protocol"
        )


KD = Metric(
    "kd", {"kid": "KID", "kd": "Kernel distance"}, _kd, ("features", "real"), alias="kid",
    pipeline="efficientnet", place=21, check=_check,
)  # fmt: skip
