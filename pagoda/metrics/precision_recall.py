"""Improved precision and recall, density and coverage, from one set of radii.

A set's manifold is the union of balls around its points, each reaching the point's k-th nearest
neighbour in the set (Kynkaanniemi et al. 2019, eqs. 1-2; Naeem et al. 2020, eqs. 3-4)::

    precision = share of generated points inside some real ball
    recall    = share of real points inside some generated ball
    density   = mean number of real balls a generated point lies in, over k
    coverage  = share of real balls that hold a generated point

Distances are compared squared and with ``<=``, in blocks of bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pagoda.errors import PagodaError
from pagoda.metrics.statistics import check_features

_BLOCK = 1 << 22  # distances held at a time: 32 MiB in float64


@dataclass(frozen=True)
class ManifoldScores:
    """Precision, recall and coverage lie in [0, 1]; density can exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


def manifold_scores(
    real: np.ndarray,
    generated: np.ndarray,
    neighbours: int = 3,
    real_radii: np.ndarray | None = None,
) -> ManifoldScores:
    """Precision, recall, density and coverage of generated against real features.

    Args:
        real: features ``(n, d)`` of real images.
        generated: features ``(m, d)`` of generated images.
        neighbours: k, the neighbour that each ball reaches.
        real_radii: :func:`squared_radii` of ``real``, to save them when many sets share it.

    Raises:
        PagodaError: if dimensions disagree, a set has k or fewer points, or anything is not finite.
    """
    real, generated = check_features(real, "real features"), check_features(generated)
    if real.shape[1] != generated.shape[1]:
        raise PagodaError(
            f"features are {real.shape[1]}-d and {generated.shape[1]}-d; use one feature network"
        )
    real_radii = squared_radii(real, neighbours) if real_radii is None else real_radii
    centre = _centre(real)
    real, generated = real - centre, generated - centre
    generated_radii = _radii(generated, neighbours)
    inside = np.zeros(len(generated), dtype=np.int64)
    recalled = np.zeros(len(real), dtype=bool)
    nearest = np.full(len(real), np.inf)
    for rows, distances in _blocks(generated, real):
        inside[rows] = np.count_nonzero(distances <= real_radii, axis=1)
        recalled |= (distances <= generated_radii[rows, None]).any(axis=0)
        np.minimum(nearest, distances.min(axis=0), out=nearest)
    return ManifoldScores(
        precision=float(np.mean(inside > 0)),
        recall=float(np.mean(recalled)),
        density=float(np.mean(inside) / neighbours),
        coverage=float(np.mean(nearest <= real_radii)),
    )


def squared_radii(features: np.ndarray, neighbours: int) -> np.ndarray:
    """Squared distance of each point ``(n, d)`` to its k-th nearest other point, ``(n,)``.

    Raises:
        PagodaError: if the set has k or fewer points.
    """
    features = check_features(features)
    return _radii(features - _centre(features), neighbours)


def _centre(features: np.ndarray) -> np.ndarray:
    """Distances do not change with a common shift, and lose fewer digits near the origin."""
    return np.asarray(features.mean(axis=0, dtype=np.float64))


def _radii(features: np.ndarray, neighbours: int) -> np.ndarray:
    if len(features) <= neighbours:
        raise PagodaError(
            f"{len(features)} points have no neighbour number {neighbours}; "
            "use more samples or fewer neighbours"
        )
    radii = np.empty(len(features))
    for rows, distances in _blocks(features, features):
        own = np.arange(rows.start, rows.stop)
        distances[own - rows.start, own] = np.inf
        radii[rows] = _kth_smallest(distances, neighbours)
    return radii


def _kth_smallest(rows: np.ndarray, k: int) -> np.ndarray:
    """k-th smallest value of each row; destroys ``rows``. For few k repeated minima are fastest."""
    if k > 8:
        return np.partition(rows, k - 1, axis=1)[:, k - 1]
    every = np.arange(len(rows))
    for _ in range(k - 1):
        rows[every, rows.argmin(axis=1)] = np.inf
    return np.asarray(rows.min(axis=1))


def _blocks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Yield (rows of a, squared distances of those rows to all of b), in float64."""
    b = b.astype(np.float64, copy=False)
    b_norms = np.einsum("ij,ij->i", b, b)
    rounding = 4 * np.sqrt(b.shape[1]) * np.finfo(np.float64).eps
    step = max(1, _BLOCK // len(b))
    for start in range(0, len(a), step):
        part = a[start : start + step].astype(np.float64, copy=False)
        norms = np.einsum("ij,ij->i", part, part)[:, None] + b_norms
        distances = part @ b.T
        distances *= -2.0
        distances += norms
        # Equal points come out at rounding error, not 0: without this they could miss a ball of
        # radius 0 around themselves.
        distances[distances <= rounding * norms] = 0.0
        yield slice(start, start + len(part)), distances
