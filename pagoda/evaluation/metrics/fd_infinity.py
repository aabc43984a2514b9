"""Frechet distance extrapolated to infinitely many samples.

The distance of n samples is too large by about c / n, and c depends on the generator, so that a
ranking at one n can be wrong. Chong and Forsyth (2020) fit a line to distances at several n::

    FD(N) ~ a + b / N,        FD_infinity = a

The variant here is theirs as dgm-eval runs it: 15 sizes, evenly spaced from 5000 (or a tenth of the
samples, where that is less) to all of them; each a random subset without replacement; the
statistics of the reference fixed; least squares without weights. Subsets come from a seed. The
paper's Sobol latents belong to the generator and are not part of it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.base import Comparison, Metric, Sample, Settings
from pagoda.evaluation.metrics.frechet import frechet_distance_to_features
from pagoda.evaluation.metrics.statistics import Moments, check_features
from pagoda.rows import Row

_SMALLEST, _POINTS = 5000, 15


class Extrapolation(NamedTuple):
    """The line ``value + slope / N`` through the distances at several numbers N of samples."""

    value: float
    slope: float
    sizes: np.ndarray
    distances: np.ndarray


def frechet_infinity(
    reference: Moments,
    features: np.ndarray,
    points: int = _POINTS,
    seed: int = 0,
    device: str | None = None,
) -> Extrapolation:
    """Fit the line to subsets of ``features`` ``(n, d)`` of ``points`` sizes.

    Raises:
        PagodaError: for fewer than 2 points, or too few samples for that many sizes.
    """
    features = check_features(features)
    sizes = extrapolation_sizes(len(features), points)
    rng, distances = np.random.default_rng(seed), []
    for size in sizes:
        part = features[np.sort(rng.choice(len(features), size, replace=False))]
        distances.append(frechet_distance_to_features(reference, part, device))
    slope, value = np.polyfit(1.0 / sizes, distances, 1)
    return Extrapolation(float(value), float(slope), sizes, np.array(distances))


def extrapolation_sizes(n: int, points: int = _POINTS) -> np.ndarray:
    """The numbers of samples at which a distance is taken, up to ``n``.

    Raises:
        PagodaError: if they would not be different.
    """
    sizes = np.linspace(min(_SMALLEST, max(n // 10, 2)), n, max(points, 1)).astype(np.int64)
    if points < 2 or len(np.unique(sizes)) < points:
        raise PagodaError(
            f"{n} samples and {points} sizes do not make a line; use 2 sizes or more and "
            "several samples for each"
        )
    return sizes


def _fd_inf(c: Comparison) -> Row:
    value = frechet_infinity(c.real.moments, c.made.features).value
    name = "fid_inf" if c.inception else "fd_inf"
    return c.row(name, value, c.real.n, "fid_inf", "fd_inf", p=_POINTS)


def _check(n: int, real: Sample, settings: Settings) -> None:
    extrapolation_sizes(n)


FD_INFINITY = Metric(
    "fd_inf", {"fid_inf": "FID, infinite n", "fd_inf": "FD, infinite n"}, _fd_inf, ("features",),
    alias="fid_inf", place=20, check=_check,
)  # fmt: skip
