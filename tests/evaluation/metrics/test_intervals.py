"""Intervals hold what they claim, measured by drawing again."""

from __future__ import annotations

from dataclasses import astuple

import numpy as np
import pytest
from scipy.special import gammaln

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.base import Comparison, Sample, Settings, metrics
from pagoda.evaluation.metrics.fd import frechet_influence, frechet_interval
from pagoda.evaluation.metrics.frechet import frechet_distance
from pagoda.evaluation.metrics.intervals import (
    Interval,
    fraction_interval,
    jackknife_interval,
    leave_groups_out,
    mean_interval,
)
from pagoda.evaluation.metrics.precision_recall import (
    _left_out,
    manifold_values,
    squared_radii,
)
from pagoda.evaluation.metrics.statistics import Moments, feature_moments

D, N = 6, 400
REFERENCE = Moments(10**9, np.zeros(D), np.diag(np.linspace(0.5, 2, D)))


def sample(seed: int, n: int = N) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.asarray(rng.gamma(3.0, 0.5, size=(n, D)) @ np.diag(np.linspace(1.5, 0.6, D)) - 1)


def distance(rows: np.ndarray) -> float:
    found = feature_moments(rows)
    return frechet_distance(REFERENCE.mean, REFERENCE.covariance, found.mean, found.covariance)


def test_wilson_holds_the_share_as_often_as_it_says() -> None:
    """Exact: every count k of n has its binomial probability. Percentile bootstraps hold 89 %."""
    for n in (10, 40, 1000):
        counts = np.arange(n + 1)
        found = [fraction_interval(np.arange(n) < k) for k in counts]
        low, high = (np.array([getattr(i, end) for i in found]) for end in ("low", "high"))
        assert (low >= 0).all() and (high <= 1).all() and (low < high).all()
        p = np.linspace(0.05, 0.95, 181)[:, None]
        mass = np.exp(gammaln(n + 1) - gammaln(counts + 1) - gammaln(n - counts + 1)
                      + counts * np.log(p) + (n - counts) * np.log1p(-p))  # fmt: skip
        held = (mass * ((low <= p) & (p <= high))).sum(1)
        assert held.mean() == pytest.approx(0.95, abs=0.02)


def test_the_mean_of_few_normal_values_is_held_as_often_as_it_says() -> None:
    rows = np.random.default_rng(0).normal(3.0, 2.0, (4000, 10))
    found = [mean_interval(row) for row in rows]
    assert np.mean([i.low <= 3 <= i.high for i in found]) == pytest.approx(0.95, abs=0.012)
    half = [mean_interval(row, level=0.5) for row in rows]
    assert np.mean([i.low <= 3 <= i.high for i in half]) == pytest.approx(0.5, abs=0.03)


def test_the_jackknife_of_a_mean_is_the_means_own_error() -> None:
    """With a group a sample: the variance of the mean, s^2 / n."""
    values = np.random.default_rng(1).normal(size=60)
    left = leave_groups_out(lambda kept: values[kept].mean(), 60, groups=60)
    found = jackknife_interval(float(values.mean()), left)
    expected = mean_interval(values)
    assert astuple(found)[:4] == pytest.approx(astuple(expected)[:4])


@pytest.mark.longer
@pytest.mark.parametrize(("d", "spread"), [(3, 0.7), (16, 1.0)])
def test_recall_and_coverage_hold_their_expected_values(d: int, spread: float) -> None:
    """Generated images drawn again 60 times, the reference kept: at least 95 %, as is said."""
    real, n = np.random.default_rng(0).normal(size=(80, d)), 100
    radii = squared_radii(real, 3)

    def both(generated: np.ndarray) -> np.ndarray:
        found = manifold_values(real, generated, 3, radii)
        return np.array([found.recalled.mean(), found.covered.mean()])

    ends, values = [], []
    for seed in range(60):
        rows = np.random.default_rng(seed + 1).normal(size=(n, d)) * spread
        left = leave_groups_out(lambda kept, rows=rows: both(rows[kept]), n)  # type: ignore[misc]
        values.append(both(rows))
        pairs = zip(values[-1], left.T, strict=True)
        ends.append([(i.low, i.high) for i in (jackknife_interval(v, part) for v, part in pairs)])
    expected = np.mean(values, axis=0)
    low, high = np.moveaxis(np.array(ends), 2, 0)
    assert (((low <= expected) & (expected <= high)).mean(0) >= 0.95).all()


def test_intervals_end_where_numbers_can_be() -> None:
    wide = Interval(0.5, -0.25, 1.25, 0.95, "jackknife")
    assert astuple(wide.within(0, 1)) == (0.5, 0.0, 1.0, 0.95, "jackknife")
    assert astuple(wide.within(0)) == (0.5, 0.0, 1.25, 0.95, "jackknife")
    inside = Interval(0.5, 0.4, 0.6, 0.95, "student")
    assert inside.within(0, 1) == inside
    rounded = Interval(-1e-17, -1e-3, 1e-3, 0.95, "influence")
    assert rounded.within(0).low == rounded.value


def test_recall_of_few_images_ends_at_one() -> None:
    rows = (np.random.default_rng(seed).normal(size=(60, 3)) for seed in (0, 1))
    real, made = (
        Sample(where="x", extractor="x", n=60, moments=feature_moments(x), spatial=None, features=x)
        for x in rows
    )
    compared = Comparison(made, real, Settings(neighbours=2))
    for key, most in (("fd", np.inf), ("recall", 1), ("coverage", 1), ("density", np.inf)):
        value = metrics()[key].measure(compared).value
        over = metrics()[key].interval(compared, value or 0.0)
        assert value is not None and over is not None
        assert 0 <= over.low <= value <= over.high <= most
    recall, left = metrics()["recall"].measure(compared).value, compared.once(_left_out)[:, 0]
    assert recall is not None and jackknife_interval(recall, left).high > 1  # the bound holds it


def test_influence_is_the_derivative() -> None:
    """Give sample i a little more weight: the distance moves by its influence times the weight.

    Weighted moments have divisor 1 here, so the reference distance has too.
    """
    rows, step = sample(0, 60), 1e-5

    def weighted(weights: np.ndarray) -> float:
        mean = weights @ rows
        centred = rows - mean
        cov = (centred * weights[:, None]).T @ centred
        return frechet_distance(REFERENCE.mean, REFERENCE.covariance, mean, cov)

    even = np.full(60, 1 / 60)
    influence = frechet_influence(REFERENCE, rows)
    assert influence.mean() == pytest.approx(0, abs=1e-12)
    slopes = []
    for i in (0, 17, 59):
        more, less = even * (1 - step), even * (1 + step)
        more[i] += step
        less[i] -= step
        slopes.append((weighted(more) - weighted(less)) / (2 * step))
    # ddof 1 against divisor n: S2 is 60 / 59 larger, a part of order 1 / n of the influence
    assert slopes == pytest.approx(list(influence[[0, 17, 59]]), rel=0.05, abs=0.05)


def test_frechet_interval_holds_the_expected_distance_at_n() -> None:
    distances = [distance(sample(seed)) for seed in range(1000, 1400)]
    expected, spread = np.mean(distances), np.std(distances)
    intervals = [frechet_interval(REFERENCE, sample(seed)) for seed in range(200)]
    held = np.mean([i.low <= expected <= i.high for i in intervals])
    assert 0.88 < held <= 1.0
    width = np.mean([i.high - i.low for i in intervals])
    assert width == pytest.approx(2 * 1.96 * spread, rel=0.12)
    assert intervals[0].value == pytest.approx(distance(sample(0)), rel=1e-12)


def test_a_singular_reference_has_an_interval_too() -> None:
    flat = Moments(10**9, np.zeros(D), np.diag([1.0, 1.0, 0, 0, 0, 0]))
    found = frechet_interval(flat, sample(1))
    assert found.low < found.value < found.high
    constant = Moments(10**9, np.zeros(D), np.zeros((D, D)))
    influence = frechet_influence(constant, sample(1))
    rows = sample(1)
    squares = np.sum((rows - rows.mean(0)) ** 2, axis=1) + 2 * (rows - rows.mean(0)) @ rows.mean(0)
    np.testing.assert_allclose(influence, squares - squares.mean(), atol=1e-10)


def test_trouble_is_one_line() -> None:
    with pytest.raises(PagodaError, match="6 samples of 6-d features give no interval"):
        frechet_interval(REFERENCE, sample(0, 6))
    for values in ([1.0], [1.0, np.nan]):
        with pytest.raises(PagodaError, match="2 or more finite values"):
            mean_interval(np.array(values))
    with pytest.raises(PagodaError, match="6 samples make no 20 groups"):
        leave_groups_out(lambda kept: kept, 6)
