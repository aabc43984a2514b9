"""Extrapolation of the Frechet distance against what is known of its bias."""

from __future__ import annotations

import numpy as np
import pytest

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics import fd_infinity
from pagoda.evaluation.metrics.fd_infinity import extrapolation_sizes, frechet_infinity
from pagoda.evaluation.metrics.statistics import Moments, feature_moments


def test_sizes_are_those_of_chong_and_forsyth() -> None:
    assert np.array_equal(
        extrapolation_sizes(50_000), np.linspace(5000, 50_000, 15).astype(np.int32)
    )
    small = extrapolation_sizes(300)
    assert small[0] == 30 and small[-1] == 300 and len(small) == 15


def test_removes_the_bias() -> None:
    """Samples of the reference's own distribution: 0 for infinitely many, far above it for n."""
    d, n = 12, 600
    reference = Moments(10**9, np.zeros(d), np.eye(d))
    at_n, extrapolated = [], []
    for seed in range(12):
        rows = np.random.default_rng(seed).normal(size=(n, d))
        line = frechet_infinity(reference, rows, seed=seed)
        at_n.append(line.distances[-1])
        extrapolated.append(line.value)
    # |mean|^2 and the covariance's noise: d / n + d (d + 1) / (4 n), to first order in 1 / n
    bias = d / n + d * (d + 1) / (4 * (n - 1))
    assert np.mean(at_n) == pytest.approx(bias, rel=0.15)
    assert abs(np.mean(extrapolated)) < 0.25 * bias


def test_a_line_is_found_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        fd_infinity, "frechet_distance_to_features", lambda r, rows, *_: 3 + 7 / len(rows)
    )
    reference = Moments(10, np.zeros(2), np.eye(2))
    found = frechet_infinity(reference, np.random.default_rng(0).normal(size=(400, 2)))
    assert found.value == pytest.approx(3, rel=1e-12) and found.slope == pytest.approx(7, rel=1e-9)


def test_the_seed_decides() -> None:
    rows = np.random.default_rng(0).normal(size=(200, 3))
    reference = feature_moments(np.random.default_rng(1).normal(size=(200, 3)) * 1.2)
    first = frechet_infinity(reference, rows, seed=4).value
    assert frechet_infinity(reference, rows, seed=4).value == first
    assert frechet_infinity(reference, rows, seed=5).value != first


def test_trouble_is_one_line() -> None:
    reference = Moments(10, np.zeros(2), np.eye(2))
    with pytest.raises(PagodaError, match="8 samples and 15 sizes"):
        frechet_infinity(reference, np.zeros((8, 2)))
    with pytest.raises(PagodaError, match="2 sizes or more"):
        frechet_infinity(reference, np.zeros((100, 2)), points=1)
