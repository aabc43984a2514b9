"""Streaming mean and covariance."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.statistics import RunningMoments, feature_moments


def correlated(n: int, d: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


@pytest.mark.parametrize(("n", "d"), [(2, 1), (7, 3), (50, 80), (1000, 20)])
def test_equals_numpy(n: int, d: int) -> None:
    rows = correlated(n, d)
    found = feature_moments(rows)
    covariance = np.cov(rows, rowvar=False).reshape(d, d)
    assert found.n == n
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-13, atol=1e-13)
    np.testing.assert_allclose(found.covariance, covariance, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("buffer_rows", [1, 2, 64, 333, 5000])
def test_merging_blocks_of_any_size(buffer_rows: int) -> None:
    rows = correlated(1000, 6)
    running = RunningMoments(6, buffer_rows)
    running.update(rows)
    found = running.moments()
    np.testing.assert_allclose(found.mean, rows.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.covariance, np.cov(rows, rowvar=False), rtol=1e-11)


def test_batches_change_no_bit() -> None:
    rows = correlated(500, 7).astype(np.float32)
    whole = feature_moments(rows)
    for batch in (1, 13, 64, 499):
        running = RunningMoments(7)
        for start in range(0, len(rows), batch):
            running.update(rows[start : start + batch])
        found = running.moments()
        assert np.array_equal(found.mean, whole.mean)
        assert np.array_equal(found.covariance, whole.covariance)


@pytest.mark.parametrize("n", [1, 2, 20, 21])
def test_few_rows_leave_a_thin_factor(n: int) -> None:
    """Of the whole covariance, while rows are at most d and none was let go."""
    running = RunningMoments(20, buffer_rows=30)
    running.update(correlated(n, 20))
    running.update(correlated(1, 20))
    found = running.moments()
    if n >= 20:
        assert found.factor is None
        return
    assert found.factor is not None and found.factor.shape == (20, n)
    np.testing.assert_allclose(found.factor @ found.factor.T, found.covariance, atol=1e-12)
    running.update(correlated(1, 20))
    assert running.moments().factor is None


def test_statistics_can_be_read_midway() -> None:
    rows = correlated(90, 4)
    running = RunningMoments(4)
    running.update(rows[:40])
    early = running.moments()
    running.update(rows[40:])
    np.testing.assert_allclose(early.covariance, np.cov(rows[:40], rowvar=False), rtol=1e-12)
    np.testing.assert_allclose(running.moments().covariance, np.cov(rows, rowvar=False), rtol=1e-12)


def test_a_large_offset_costs_no_digits() -> None:
    """Sums of squares lose every digit here: 1e9 squared is 1e18, beyond float64's 2^53."""
    small = np.random.default_rng(0).integers(-8, 9, size=(300, 3)).astype(np.float64)
    running = RunningMoments(3, buffer_rows=50)
    running.update(small + 1e9)
    n = len(small)
    exact = [
        [
            Fraction(n * int(a @ b) - int(a.sum()) * int(b.sum()), n * (n - 1))
            for b in small.T
        ]
        for a in small.T
    ]  # fmt: skip
    expected = np.array([[float(value) for value in row] for row in exact])
    np.testing.assert_allclose(running.moments().covariance, expected, rtol=1e-8, atol=1e-8)


def test_half_precision_features_are_summed_in_double() -> None:
    rows = np.full((5000, 2), 0.1, np.float16)
    rows[::2, 1] = 0.2
    found = feature_moments(rows)
    assert found.mean[0] == pytest.approx(float(np.float16(0.1)), rel=1e-14)
    assert found.covariance[0, 0] == pytest.approx(0, abs=1e-30)


def test_trouble_is_one_line() -> None:
    running = RunningMoments(3)
    with pytest.raises(PagodaError, match=r"0 images have no covariance; use 2 or more"):
        running.moments()
    running.update(np.zeros((1, 3)))
    with pytest.raises(PagodaError, match=r"1 images have no covariance"):
        running.moments()
    with pytest.raises(PagodaError, match=r"features are 4-d, the statistics 3-d"):
        running.update(np.zeros((2, 4)))
    bad = np.zeros((6, 3))
    bad[4, 1], bad[5, 0] = np.nan, np.inf
    with pytest.raises(PagodaError, match=r"NaN or infinity, first in row 4"):
        running.update(bad)
    for wrong in (np.zeros(3), np.zeros((0, 3))):
        with pytest.raises(PagodaError, match="non-empty"):
            running.update(wrong)
