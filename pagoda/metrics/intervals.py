"""Intervals over samples by the bootstrap.

An interval over samples says how far the number would move with other samples of the same
generator, at the same n, reference and network. It says nothing of the bias of a distance at
finite n (:mod:`pagoda.metrics.fd_infinity` does), nor of other training runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pagoda.errors import PagodaError
from pagoda.metrics.frechet import covariance_factor, frechet_distance
from pagoda.metrics.statistics import Moments, check_features, feature_moments


@dataclass(frozen=True)
class Interval:
    """An estimate with the two ends of its interval.

    Attributes:
        value: the estimate.
        low, high: ends.
        level: share of intervals that hold the expected estimate, nominally.
    """

    value: float
    low: float
    high: float
    level: float


def bootstrap_mean(
    values: np.ndarray, level: float = 0.95, resamples: int = 1000, seed: int = 0
) -> Interval:
    """Percentile bootstrap of a mean over samples, such as precision, density or PSNR.

    Args:
        values: one value a sample, (n,).
        level: nominal coverage.
        resamples: number of resamples of n values with replacement.
        seed: seed of the resamples.

    Raises:
        PagodaError: for fewer than 2 values, or NaN or infinity among them.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise PagodaError("an interval needs 2 or more finite values, one a sample")
    rng = np.random.default_rng(seed)
    means = [values[rng.integers(0, len(values), len(values))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(values.mean()), float(low), float(high), level)


def frechet_interval(
    reference: Moments,
    features: np.ndarray,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Bootstrap of a Frechet distance over samples, to first order.

    A resample moves the distance by the mean of its samples' influences
    (:func:`frechet_influence`) and terms of order 1 / n, which are left out. One eigenvalue
    problem serves all resamples. Resampling the distance itself would cost one each, and would
    centre on a value that is biased twice: a resample holds about 63 % of the samples.

    So the interval is one for the expected distance *at this n*, bias included. Between equal
    distributions the influence vanishes and the interval is too narrow.

    Args:
        reference: statistics of the reference, taken as exact.
        features: features ``(n, d)`` of the generated images, n > d.
        level: nominal coverage.
        resamples: number of resamples.
        seed: seed of the resamples.

    Raises:
        PagodaError: if n <= d, shapes disagree, or anything is not finite.
    """
    moments = feature_moments(features)
    value = frechet_distance(reference.mean, reference.covariance, moments.mean, moments.covariance)
    moved = bootstrap_mean(frechet_influence(reference, features), level, resamples, seed)
    return Interval(value, value + moved.low, value + moved.high, level)


def frechet_influence(reference: Moments, features: np.ndarray) -> np.ndarray:
    """Influence of each sample on the Frechet distance, (n,), with mean 0.

    With ``z = x - m2`` and the optimal map ``T = L (L^T S2 L)^(-1/2) L^T``, ``S1 = L L^T``::

        IF(x) = -2 (m1 - m2).z + z^T (1 - T) z - tr((1 - T) S2)

    Raises:
        PagodaError: if n <= d, where the derivative does not exist.
    """
    features = check_features(features)
    n, d = features.shape
    if n <= d:
        raise PagodaError(
            f"{n} samples of {d}-d features give no interval for a Frechet distance; "
            f"use more than {d}"
        )
    moments = feature_moments(features)
    factor = covariance_factor(reference.covariance)
    inner = factor.T @ moments.covariance @ factor
    values, vectors = np.linalg.eigh((inner + inner.T) / 2)
    kept = values > d * np.finfo(np.float64).eps * values.max(initial=0.0)
    half = factor @ (vectors[:, kept] * values[kept] ** -0.25)
    z = features - moments.mean
    mapped = z @ half
    bend = np.einsum("ij,ij->i", z, z) - np.einsum("ij,ij->i", mapped, mapped)
    influence = bend - 2.0 * (z @ (reference.mean - moments.mean))
    return np.asarray(influence - influence.mean())
