"""Intervals hold what they claim, measured by drawing again."""

from __future__ import annotations

import numpy as np
import pytest

from pagoda.errors import PagodaError
from pagoda.metrics.frechet import frechet_distance
from pagoda.metrics.intervals import (
    bootstrap_mean,
    frechet_influence,
    frechet_interval,
)
from pagoda.metrics.statistics import Moments, feature_moments

D, N = 6, 400
REFERENCE = Moments(10**9, np.zeros(D), np.diag(np.linspace(0.5, 2, D)))


def sample(seed: int, n: int = N) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return np.asarray(rng.gamma(3.0, 0.5, size=(n, D)) @ np.diag(np.linspace(1.5, 0.6, D)) - 1)


def distance(rows: np.ndarray) -> float:
    found = feature_moments(rows)
    return frechet_distance(REFERENCE.mean, REFERENCE.covariance, found.mean, found.covariance)


def test_mean_of_yes_and_no_against_the_binomial() -> None:
    values = np.arange(1000) % 4 == 0
    found = bootstrap_mean(values, resamples=4000)
    half = 1.96 * np.sqrt(0.25 * 0.75 / 1000)
    assert found.value == 0.25
    assert found.low == pytest.approx(0.25 - half, abs=0.003)
    assert found.high == pytest.approx(0.25 + half, abs=0.003)
    assert bootstrap_mean(values, level=0.5).high < found.high


def test_the_seed_decides() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert bootstrap_mean(values, seed=1) == bootstrap_mean(values, seed=1)
    assert bootstrap_mean(values, seed=1) != bootstrap_mean(values, seed=2)


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
    intervals = [frechet_interval(REFERENCE, sample(seed), resamples=300) for seed in range(200)]
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
            bootstrap_mean(np.array(values))
