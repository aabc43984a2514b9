"""The Frechet distance as a metric: ``fd``, ``sfd`` of spatial features, and to the other split.

With Inception's features, and only these, they are FID and sFID; see :mod:`.frechet`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.base import Comparison, Metric, Sample, Settings
from pagoda.evaluation.metrics.frechet import frechet_distance
from pagoda.evaluation.metrics.intervals import Interval, mean_interval
from pagoda.evaluation.metrics.statistics import (
    Moments,
    check_features,
    covariance_factor,
    feature_moments,
)
from pagoda.rows import Row


def _distance(real: Moments, made: Moments) -> float:
    return frechet_distance(
        real.mean, real.covariance, made.mean, made.covariance, real.cholesky, factor2=made.factor
    )


def _fd(c: Comparison) -> Row:
    value = _distance(c.real.moments, c.made.moments)
    return c.row("fid" if c.inception else "fd", value, c.real.n, "fid", "fd")


def _sfd(c: Comparison) -> Row:
    if c.made.spatial is None:
        raise PagodaError(f"{c.made.extractor} gives no spatial features, which sFID needs")
    return c.row("sfid", _distance(_spatial(c.real), c.made.spatial), c.real.n, "sfid", "sfd")


def _spatial(real: Sample) -> Moments:
    if real.spatial is None:
        raise PagodaError(
            f"{real.where} has no statistics of spatial features, which sFID needs; make "
            "the reference with --spatial"
        )
    return real.spatial


def _fd_other(c: Comparison) -> Row:
    """To real images of the split that the reference does not describe.

    With a reference of training images: to held-out ones, ``fd_test``. It is larger than the
    distance to training images where those were memorised, and a little where ``m``, the number
    of real images, is smaller.
    """
    names = [f"{name}_{'train' if c.real.split == 'test' else 'test'}" for name in ("fid", "fd")]
    n = c.other.n or 0
    value = _distance(c.other.moments, c.made.moments)
    row = c.row(names[0] if c.inception else names[1], value, n, *names, m=n)
    return replace(row, reference=c.other.fingerprint)


def _interval(c: Comparison, value: float) -> Interval | None:
    features = c.made.features
    if len(features) <= features.shape[1]:
        return None
    return frechet_interval(c.real.moments, features, value=value)


def frechet_interval(
    reference: Moments, features: np.ndarray, level: float = 0.95, value: float | None = None
) -> Interval:
    """Interval of a Frechet distance over samples ``(n, d)``, n > d, to first order.

    Other samples move the distance by the mean of their influences (:func:`frechet_influence`) and
    terms of order 1 / n, which are left out: the interval is that mean's. One eigenvalue problem
    serves it. Resampling the distance itself would cost one a resample, and would centre on a value
    that is biased twice: a resample holds about 63 % of the samples. So the interval is one for the
    expected distance *at this n*, bias included; between equal distributions the influence vanishes
    and it is too narrow. It ends at 0. The reference is taken as exact.

    Raises:
        PagodaError: if n <= d, shapes disagree, or anything is not finite.
    """
    if value is None:
        made = feature_moments(features)
        value = frechet_distance(reference.mean, reference.covariance, made.mean, made.covariance)
    moved = mean_interval(frechet_influence(reference, features), level)
    ends = value + moved.low, value + moved.high
    return Interval(value, *ends, level, "influence").within(0.0)


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


def _check_spatial(n: int, real: Sample, settings: Settings) -> None:
    _spatial(real)


FD = Metric(
    "fd", {"fid": "FID", "fd": "FD"}, _fd, alias="fid", pipeline="any", place=0,
    interval=_interval, interval_needs=("features",),
)  # fmt: skip
SFD = Metric("sfd", {"sfid": "sFID"}, _sfd, ("spatial",), alias="sfid", pipeline="any", place=1,
             check=_check_spatial)  # fmt: skip
FD_TEST = Metric(
    "fd_test", {"fid_test": "FID to held-out images", "fd_test": "FD to held-out images",
                "fid_train": "FID to training images", "fd_train": "FD to training images"},
    _fd_other, ("held_out",), pipeline="any", place=8,
)  # fmt: skip
