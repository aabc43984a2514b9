"""Precision, recall, density and coverage against toy sets and a naive double loop."""

from __future__ import annotations

import numpy as np
import pytest

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics import distances
from pagoda.evaluation.metrics.precision_recall import (
    ManifoldScores,
    manifold_scores,
    squared_radii,
)


def naive(real: np.ndarray, generated: np.ndarray, k: int) -> ManifoldScores:
    """The definitions, one distance at a time."""

    def radii(points: np.ndarray) -> list[float]:
        return [
            sorted(float(np.linalg.norm(p - q)) for j, q in enumerate(points) if j != i)[k - 1]
            for i, p in enumerate(points)
        ]

    around_real, around_generated = radii(real), radii(generated)
    gaps = [[float(np.linalg.norm(g - r)) for r in real] for g in generated]
    n, m = len(real), len(generated)
    balls = [[gaps[j][i] <= around_real[i] for i in range(n)] for j in range(m)]
    return ManifoldScores(
        precision=sum(any(row) for row in balls) / m,
        recall=sum(any(gaps[j][i] <= around_generated[j] for j in range(m)) for i in range(n)) / n,
        density=sum(sum(row) for row in balls) / (k * m),
        coverage=sum(any(balls[j][i] for j in range(m)) for i in range(n)) / n,
    )


def two_sets(n: int, m: int, d: int, shift: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n + m + d)
    return rng.normal(size=(n, d)), rng.normal(size=(m, d)) * 0.8 + shift


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize(("n", "m", "d", "shift"), [(60, 45, 2, 0.5), (40, 70, 12, 0.3)])
@pytest.mark.parametrize("block", [1, 13, 2048])
def test_equals_the_naive_loop(
    n: int, m: int, d: int, shift: float, k: int, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distances, "_TILE", block)
    real, generated = two_sets(n, m, d, shift)
    expected = naive(real, generated, k)
    assert 0 < expected.recall < 1  # the case says something
    assert manifold_scores(real, generated, k) == expected


def test_points_on_a_line() -> None:
    """Worked by hand for k = 1; radii are squared."""
    real = np.array([[0.0], [1.0], [2.0], [10.0]])
    generated = np.array([[1.5], [3.5], [50.0]])
    np.testing.assert_allclose(squared_radii(real, 1), [1, 1, 1, 64], rtol=1e-12)
    np.testing.assert_allclose(squared_radii(generated, 1), [4, 4, 46.5**2], rtol=1e-12)
    # 1.5 lies in the balls around 1 and 2, 3.5 in 10 +- 8, 50 in none.
    found = manifold_scores(real, generated, 1)
    assert found.precision == pytest.approx(2 / 3)
    assert found.density == pytest.approx((2 + 1 + 0) / 3)
    # 1.5 +- 2 holds 0, 1, 2; 50 +- 46.5 holds 10.
    assert found.recall == 1.0
    assert found.coverage == pytest.approx(3 / 4)


def test_identical_sets_and_distant_sets() -> None:
    real, _ = two_sets(200, 10, 8, 0)
    same = manifold_scores(real, real.copy(), 3)
    assert same.precision == same.recall == same.coverage == 1.0
    assert same.density == pytest.approx(4 / 3)  # each ball holds its centre and k neighbours
    far = manifold_scores(real, real + 1e3, 3)
    assert far == ManifoldScores(0.0, 0.0, 0.0, 0.0)


def test_a_collapsed_generator_is_precise_and_recalls_nothing() -> None:
    real, _ = two_sets(200, 10, 4, 0)
    found = manifold_scores(real, np.tile(real.mean(0), (50, 1)), 3)
    assert found.precision == 1.0 and found.recall == 0.0 and found.coverage < 0.5


def test_a_missing_mode_lowers_recall_not_precision() -> None:
    rng = np.random.default_rng(0)
    near, far = rng.normal(size=(150, 2)), rng.normal(size=(50, 2)) + 100
    found = manifold_scores(np.concatenate([near, far]), near + rng.normal(size=near.shape) / 50)
    assert found.precision > 0.95
    assert 0.65 < found.recall <= 0.75 and found.coverage <= 0.75


def test_copies_of_a_point_lie_in_its_ball_of_radius_zero() -> None:
    """Rounding must not push a copy outside: duplicates in wide features give radius 0."""
    rng = np.random.default_rng(0)
    points = np.repeat(rng.normal(size=(20, 512)) * 30 + 5, 3, axis=0)
    assert np.array_equal(squared_radii(points, 2), np.zeros(60))
    found = manifold_scores(points, points[::3].repeat(4, axis=0), 2)
    assert found.precision == found.recall == found.coverage == 1.0


def test_cached_radii_change_nothing() -> None:
    real, generated = two_sets(80, 90, 16, 0.2)
    radii = squared_radii(real.astype(np.float32), 3)
    cached = manifold_scores(real.astype(np.float32), generated, 3, radii)
    assert cached == manifold_scores(real.astype(np.float32), generated, 3)


def test_a_common_shift_changes_nothing() -> None:
    real, generated = two_sets(80, 90, 16, 0.2)
    assert manifold_scores(real + 1e4, generated + 1e4) == manifold_scores(real, generated)


def test_inputs_are_left_as_they_were() -> None:
    real, generated = two_sets(30, 30, 3, 0.1)
    before = real.copy(), generated.copy()
    manifold_scores(real, generated)
    assert np.array_equal(real, before[0]) and np.array_equal(generated, before[1])


def test_trouble_is_one_line() -> None:
    real, generated = two_sets(30, 30, 3, 0.1)
    with pytest.raises(PagodaError, match="3 points have no neighbour number 3"):
        manifold_scores(real, generated[:3], 3)
    with pytest.raises(PagodaError, match="use one feature network"):
        manifold_scores(real, generated[:, :2])
    real[4] = np.nan
    with pytest.raises(PagodaError, match="real features hold NaN or infinity, first in row 4"):
        manifold_scores(real, generated)
