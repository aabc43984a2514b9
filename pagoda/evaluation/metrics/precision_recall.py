"""Improved precision and recall, density and coverage, from one set of radii.

A set's manifold is the union of balls around its points, each reaching the point's k-th nearest
neighbour in the set (Kynkaanniemi et al. 2019, eqs. 1-2; Naeem et al. 2020, eqs. 3-4)::

    precision = fraction of generated points inside some real ball
    recall    = fraction of real points inside some generated ball
    density   = mean number of real balls a generated point lies in, over k
    coverage  = fraction of real balls that hold a generated point

Distances are compared squared, with ``<=``, and as float64 differences would have it, whatever the
precision of the features (:mod:`pagoda.evaluation.metrics.distances`): ties are exact.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.arrays import arrays_on
from pagoda.evaluation.metrics.base import Comparison, Metric, Sample, Settings
from pagoda.evaluation.metrics.distances import (
    Points,
    Tile,
    about,
    decide,
    nearest,
    squared_distances,
)
from pagoda.evaluation.metrics.intervals import (
    GROUPS,
    Interval,
    fraction_interval,
    jackknife_interval,
    leave_groups_out,
    mean_interval,
)
from pagoda.evaluation.metrics.statistics import check_features
from pagoda.rows import Row


class ManifoldScores(NamedTuple):
    """Precision, recall and coverage lie in [0, 1]; density can exceed 1."""

    precision: float
    recall: float
    density: float
    coverage: float


@dataclass(frozen=True)
class ManifoldValues:
    """What the scores are means of.

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
    """The four scores of generated features ``(m, d)`` against real ones ``(n, d)``.

    Args:
        real, generated: the sets.
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
    if real_radii is None:
        real_radii = squared_radii(real, neighbours, device)
    radii = squared_radii(generated, neighbours, device)
    with arrays_on(device) as arrays:
        points = about([real, generated], arrays)
        return _compare(points[0], points[1], real_radii, radii, neighbours)


def squared_radii(features: np.ndarray, neighbours: int, device: str | None = None) -> np.ndarray:
    """Squared distance of each point ``(n, d)`` to its k-th nearest other point, ``(n,)`` float64.

    Raises:
        PagodaError: if the set has k or fewer points, or k is not 1 or more.
    """
    features = check_features(features)
    if not 1 <= neighbours < len(features):
        raise PagodaError(
            f"{len(features)} points have no neighbour number {neighbours}; "
            "use more samples or fewer neighbours, 1 or more"
        )
    with arrays_on(device) as arrays:
        (points,) = about([features], arrays)
        return np.asarray(nearest(points, points, neighbours)[points.origin, -1])


def nearest_squared(
    points: np.ndarray, sets: Sequence[np.ndarray], device: str | None = None
) -> list[np.ndarray]:
    """Squared distance of each point ``(m, d)`` to the nearest of each set, (m,); exact ties.

    Raises:
        PagodaError: if dimensions disagree, or anything is not finite.
    """
    points, sets = check_features(points), [check_features(s, "real features") for s in sets]
    if any(s.shape[1] != points.shape[1] for s in sets):
        raise PagodaError("features are of different dimensions; use one feature network")
    with arrays_on(device) as arrays:
        own, *others = about([points, *sets], arrays)
        return [nearest(own, held, 1)[own.origin, 0] for held in others]


def _compare(
    real: Points,
    generated: Points,
    radii: np.ndarray,
    own_radii: np.ndarray,
    neighbours: int,
) -> ManifoldValues:
    """Radii are of the points as they were given."""
    radii, own_radii = real.of_distinct(radii), generated.of_distinct(own_radii)
    inside = np.zeros(len(own_radii), dtype=np.int64)
    recalled, covered = (np.zeros(len(radii), dtype=bool) for _ in range(2))
    arrays = real.arrays
    for rows in generated.slices:
        for columns in real.slices:
            find = partial(_held, radii=radii[columns], own_radii=own_radii[rows])
            (in_real, in_own), (i, j) = decide(generated, rows, real, columns, find)
            copies = real.copies[columns]
            more = np.flatnonzero(copies > 1)
            inside[rows] += arrays.get(arrays.row_counts(in_real))
            inside[rows] += arrays.get(in_real[:, more]) @ (copies[more] - 1)
            covered[columns] |= arrays.get(in_real.any(axis=0))
            recalled[columns] |= arrays.get(in_own.any(axis=0))
            distances = squared_distances(generated, real, (i, j))
            held = (distances <= radii[j]) & ~arrays.get(in_real)[i - rows.start, j - columns.start]
            np.add.at(inside, i[held], real.copies[j[held]])
            covered[j[held]] = True
            recalled[j[distances <= own_radii[i]]] = True
    kinds, mine = real.origin, generated.origin
    return ManifoldValues(inside[mine], recalled[kinds], covered[kinds], neighbours)


def _held(tile: Tile, radii: np.ndarray, own_radii: np.ndarray) -> tuple[tuple[Any, Any], Any]:
    """Flags of pairs surely in the balls around real and around generated points; of doubts."""
    upper = tile.upper()
    in_real = upper <= tile.limit(radii, -np.inf)
    in_own = upper <= tile.limit(own_radii, -np.inf)[:, None]
    doubt = (tile.lower <= tile.limit(radii, np.inf)) ^ in_real
    doubt |= (tile.lower <= tile.limit(own_radii, np.inf)[:, None]) ^ in_own
    return (in_real, in_own), doubt


def _values(c: Comparison) -> ManifoldValues:
    return manifold_values(c.real.kept, c.made.features, c.settings.neighbours, _radii(c), c.device)


def _radii(c: Comparison) -> np.ndarray:
    k = c.settings.neighbours
    return c.real.once(("radii", k), lambda: squared_radii(c.real.kept, k, c.device))


def _left_out(c: Comparison) -> np.ndarray:
    """(groups, 2) recall and coverage without one group of generated images at a time."""
    k = c.settings.neighbours

    def both(kept: np.ndarray) -> np.ndarray:
        part = manifold_values(c.real.kept, c.made.features[kept], k, _radii(c), c.device)
        return np.array([part.recalled.mean(), part.covered.mean()])

    return leave_groups_out(both, c.n)


def _jackknife(c: Comparison, value: float, column: int) -> Interval | None:
    """None where k neighbours are not left when a group of images is not there."""
    if c.n < 2 * GROUPS or c.n - -(-c.n // GROUPS) <= c.settings.neighbours:
        return None
    return jackknife_interval(value, c.once(_left_out)[:, column]).within(0.0, 1.0)


def _check(n: int, real: Sample, settings: Settings) -> None:
    have, k = min(n, len(real.kept)), settings.neighbours
    if not 1 <= k < have:
        raise PagodaError(f"{have} images have no {k} neighbours; use more, or smaller -k")


def _metric(
    name: str, place: int, interval: Callable[[Comparison, float], Interval | None], pipeline: str
) -> Metric:
    def measure(c: Comparison) -> Row:
        value = getattr(c.once(_values).scores(), name)
        return c.row(name, value, len(c.real.kept), k=c.settings.neighbours)

    return Metric(
        name, {name: name.capitalize()}, measure, ("features", "real"), "higher", group="prdc",
        pipeline=pipeline, place=place, check=_check, interval=interval,
    )  # fmt: skip


PRECISION = _metric(
    "precision", 5, lambda c, value: fraction_interval(c.once(_values).inside > 0), "any"
)
RECALL = _metric("recall", 6, lambda c, value: _jackknife(c, value, 0), "any")
DENSITY = _metric(
    "density",
    23,
    lambda c, _: mean_interval(c.once(_values).inside / c.settings.neighbours).within(0.0),
    "",
)
COVERAGE = _metric("coverage", 7, lambda c, value: _jackknife(c, value, 1), "any")
