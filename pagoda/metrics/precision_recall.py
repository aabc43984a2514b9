"""Improved precision and recall, density and coverage, from one set of radii.

A set's manifold is the union of balls around its points, each reaching the point's k-th nearest
neighbour in the set (Kynkaanniemi et al. 2019, eqs. 1-2; Naeem et al. 2020, eqs. 3-4)::

    precision = share of generated points inside some real ball
    recall    = share of real points inside some generated ball
    density   = mean number of real balls a generated point lies in, over k
    coverage  = share of real balls that hold a generated point

Distances are compared squared and with ``<=``, ties within rounding included. They are made tile by
tile from matrix products, in the precision of the features (float32 unless either set is float64),
about a common centre; radii use that distances are symmetric. ``|a|^2 + |b|^2 - 2 a.b`` cancels for
points that nearly coincide: a tile that holds such a pair is made again in float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pagoda.errors import PagodaError
from pagoda.metrics.arrays import Arrays, arrays_on, tiles, working_type
from pagoda.metrics.statistics import check_features

_TILE = 2048  # rows and columns of a tile of distances: 16 MiB in float32
_TIE = 8  # a distance this many eps of the squared norms above a radius counts as equal to it
_CLOSE = 1e-3  # a squared distance below this share of the squared norms is made in float64


@dataclass(frozen=True)
class ManifoldScores:
    """Precision, recall and coverage lie in [0, 1]; density can exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True)
class ManifoldValues:
    """What the scores are means of, one value a point.

    Attributes:
        inside: number of real balls that each generated point lies in, (m,).
        recalled: whether each real point lies in a generated ball, (n,).
        covered: whether each real ball holds a generated point, (n,).
        neighbours: k.
    """

    inside: np.ndarray
    recalled: np.ndarray
    covered: np.ndarray
    neighbours: int

    def scores(self) -> ManifoldScores:
        """The four means."""
        return ManifoldScores(
            precision=float(np.mean(self.inside > 0)),
            recall=float(np.mean(self.recalled)),
            density=float(np.mean(self.inside) / self.neighbours),
            coverage=float(np.mean(self.covered)),
        )


def manifold_scores(
    real: np.ndarray,
    generated: np.ndarray,
    neighbours: int = 3,
    real_radii: np.ndarray | None = None,
    device: str | None = None,
) -> ManifoldScores:
    """Precision, recall, density and coverage of generated against real features.

    Args:
        real: features ``(n, d)`` of real images.
        generated: features ``(m, d)`` of generated images.
        neighbours: k, the neighbour that each ball reaches.
        real_radii: :func:`squared_radii` of ``real``, to save them when many sets share it.
        device: where torch does the arithmetic; None for numpy.

    Raises:
        PagodaError: if dimensions disagree, a set has k or fewer points, or anything is not finite.
    """
    return manifold_values(real, generated, neighbours, real_radii, device).scores()


def manifold_values(
    real: np.ndarray,
    generated: np.ndarray,
    neighbours: int = 3,
    real_radii: np.ndarray | None = None,
    device: str | None = None,
) -> ManifoldValues:
    """As :func:`manifold_scores`, before the means are taken: for intervals over samples."""
    real, generated = check_features(real, "real features"), check_features(generated)
    if real.shape[1] != generated.shape[1]:
        raise PagodaError(
            f"features are {real.shape[1]}-d and {generated.shape[1]}-d; use one feature network"
        )
    centre, dtype = _centre(real), working_type(real, generated)
    with arrays_on(device) as arrays:
        real_points = _Points(real, centre, dtype, arrays)
        points = _Points(generated, centre, dtype, arrays)
        if real_radii is None:
            real_radii = _radii(real_points, neighbours)
        reach = _reach(real_points, real_radii)
        own_reach = _reach(points, _radii(points, neighbours))
        return _compare(real_points, points, reach, own_reach, neighbours)


def squared_radii(features: np.ndarray, neighbours: int, device: str | None = None) -> np.ndarray:
    """Squared distance of each point ``(n, d)`` to its k-th nearest other point, ``(n,)``.

    Raises:
        PagodaError: if the set has k or fewer points.
    """
    features = check_features(features)
    with arrays_on(device) as arrays:
        points = _Points(features, _centre(features), working_type(features), arrays)
        return _radii(points, neighbours)


def nearest_squared(
    points: np.ndarray, sets: Sequence[np.ndarray], device: str | None = None
) -> tuple[list[np.ndarray], np.ndarray]:
    """Squared distance of each point ``(m, d)`` to the nearest point of each set ``(n, d)``.

    Returns:
        For each set (m,); and (m,) the difference up to which two of them are equal to rounding.

    Raises:
        PagodaError: if dimensions disagree, or anything is not finite.
    """
    points, sets = check_features(points), [check_features(s, "real features") for s in sets]
    if any(s.shape[1] != points.shape[1] for s in sets):
        raise PagodaError("features are of different dimensions; use one feature network")
    centre, dtype = _centre(sets[0]), working_type(points, *sets)
    with arrays_on(device) as arrays:
        own = _Points(points, centre, dtype, arrays)
        nearest = [_nearest(own, _Points(s, centre, dtype, arrays)) for s in sets]
        reach = np.max(nearest, axis=0)
        return nearest, np.asarray(_reach(own, reach) - reach)


def _nearest(points: _Points, others: _Points) -> np.ndarray:
    found: np.ndarray = np.full(len(points), np.inf, points.dtype)
    arrays = points.arrays
    for rows in points.slices:
        for columns in others.slices:
            least = arrays.get(arrays.smallest(_distances(points, rows, others, columns), 1))[:, 0]
            found[rows] = np.minimum(found[rows], least)
    return found


def _centre(features: np.ndarray) -> np.ndarray:
    """Distances do not change with a common shift, and lose fewer digits near the origin."""
    return np.asarray(features.mean(axis=0, dtype=np.float64))


class _Points:
    """A set of features that hands out centred tiles of itself; no centred copy is held."""

    def __init__(
        self, features: np.ndarray, centre: np.ndarray, dtype: type, arrays: Arrays
    ) -> None:
        self._features, self._centre = features, centre
        self.dtype, self.arrays = dtype, arrays
        self.slices = tiles(len(features), _TILE)

    def __len__(self) -> int:
        return len(self._features)

    def rows(self, part: slice, dtype: type) -> Any:
        return self.arrays.put(self._features[part] - self._centre.astype(dtype), dtype)


def _radii(points: _Points, neighbours: int) -> np.ndarray:
    if len(points) <= neighbours:
        raise PagodaError(
            f"{len(points)} points have no neighbour number {neighbours}; "
            "use more samples or fewer neighbours"
        )
    nearest: np.ndarray = np.full((len(points), neighbours), np.inf, points.dtype)
    arrays = points.arrays
    for i, rows in enumerate(points.slices):
        for columns in points.slices[: i + 1]:
            distances = _distances(points, rows, points, columns)
            if rows != columns:
                mirrored = arrays.transposed(distances)
                _merge(nearest[columns], arrays.get(arrays.smallest(mirrored, neighbours)))
            _merge(nearest[rows], arrays.get(arrays.smallest(distances, neighbours)))
    return np.asarray(nearest[:, -1])


def _reach(points: _Points, radii: np.ndarray) -> np.ndarray:
    """Squared radii widened by rounding, so that a tie does not depend on how a tile was made."""
    norms = np.empty(len(points))
    for rows in points.slices:
        part = points.rows(rows, points.dtype)
        norms[rows] = points.arrays.get(points.arrays.row_products(part, part))
    slack = _TIE * float(np.finfo(points.dtype).eps) * (norms + radii)
    return np.asarray(radii + slack, points.dtype)


def _merge(nearest: np.ndarray, found: np.ndarray) -> None:
    """Put into ``nearest`` (rows, k) the k smallest of itself and ``found``, in order."""
    nearest[:] = np.sort(np.concatenate([nearest, found], axis=1), axis=1)[:, : nearest.shape[1]]


def _compare(
    real: _Points,
    generated: _Points,
    reach: np.ndarray,
    own_reach: np.ndarray,
    neighbours: int,
) -> ManifoldValues:
    inside = np.zeros(len(generated), dtype=np.int64)
    recalled, covered = (np.zeros(len(real), dtype=bool) for _ in range(2))
    arrays = real.arrays
    limits, own_limits = (arrays.put(r, real.dtype) for r in (reach, own_reach))
    for rows in generated.slices:
        for columns in real.slices:
            distances = _distances(generated, rows, real, columns)
            held = distances <= limits[columns]
            inside[rows] += arrays.get(arrays.row_counts(held))
            covered[columns] |= arrays.get(held.any(axis=0))
            held = distances <= own_limits[rows][:, None]
            recalled[columns] |= arrays.get(held.any(axis=0))
    return ManifoldValues(inside, recalled, covered, neighbours)


def _distances(a: _Points, rows: slice, b: _Points, columns: slice) -> Any:
    """A tile of squared distances; of a point to itself, infinity."""
    own = a is b and rows == columns
    found, close = _tile(a, rows, b, columns, a.dtype, own)
    if close and a.dtype == np.float32:
        found, close = _tile(a, rows, b, columns, np.float64, own)
    return found


def _tile(
    a: _Points, rows: slice, b: _Points, columns: slice, dtype: type, own: bool
) -> tuple[Any, bool]:
    """The tile by one product in ``dtype``, and whether a pair in it nearly coincides.

    Equal points come out at rounding error, not 0; in float64 that is put right, for they could
    miss a ball of radius 0 around themselves.
    """
    arrays = a.arrays
    left = a.rows(rows, dtype)
    right = left if own else b.rows(columns, dtype)
    norms = arrays.row_products(left, left)
    others = norms if own else arrays.row_products(right, right)
    found = left @ right.T  # numpy takes half the work where both are one matrix
    found *= -2.0
    found += norms[:, None]
    found += others
    if own:
        diagonal = np.arange(len(norms))
        found[diagonal, diagonal] = np.inf
    close = bool(found.min() <= _CLOSE * (norms.max() + others.max()))
    if close and dtype == np.float64:
        rounding = 4 * left.shape[1] ** 0.5 * np.finfo(np.float64).eps
        found[found <= rounding * (norms[:, None] + others)] = 0.0
        if a.dtype == np.float32:
            found = arrays.single(found)
    return found, close
