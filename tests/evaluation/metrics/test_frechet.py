"""Frechet distance against closed forms, and in its degenerate cases."""

from __future__ import annotations

from collections.abc import Callable

import mpmath
import numpy as np
import pytest

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics import frechet
from pagoda.evaluation.metrics.frechet import (
    frechet_distance,
    frechet_distance_of_features,
    frechet_distance_to_features,
    nuclear_norm,
    trace_sqrt_product,
)
from pagoda.evaluation.metrics.statistics import covariance_factor, feature_moments


def rotation(d: int, seed: int = 0) -> np.ndarray:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(d, d)))[0]


def positive(d: int, seed: int, low: float = 0.1, high: float = 3.0) -> np.ndarray:
    """A random symmetric matrix with eigenvalues in [low, high]."""
    q = rotation(d, seed)
    values = np.random.default_rng(seed + 1).uniform(low, high, d)
    return np.asarray((q * values) @ q.T)


def test_one_dimension() -> None:
    """(m1 - m2)^2 + (s1 - s2)^2."""
    distance = frechet_distance(
        np.array([1.0]), np.array([[4.0]]), np.array([-2.0]), np.array([[0.25]])
    )
    assert distance == pytest.approx(3.0**2 + 1.5**2, rel=1e-14)


@pytest.mark.parametrize("d", [2, 64, 300])
def test_commuting_covariances(d: int) -> None:
    """|m1 - m2|^2 + sum (sqrt(a) - sqrt(b))^2 when S1 and S2 share eigenvectors."""
    rng, q = np.random.default_rng(d), rotation(d)
    a, b = rng.uniform(0.5, 4, d), rng.uniform(0.5, 4, d)
    m1, m2 = rng.normal(size=d), rng.normal(size=d)
    expected = np.sum((m1 - m2) ** 2) + np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    found = frechet_distance(m1, (q * a) @ q.T, m2, (q * b) @ q.T)
    assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("rank", [40, 7])
def test_covariances_that_do_not_commute(rank: int) -> None:
    """x -> T x, T symmetric positive, is the optimal map: d^2 = tr (1 - T) S (1 - T).

    (Brenier: it is the gradient of a convex function.) True for singular S as well.
    """
    d = 40
    low = np.random.default_rng(3).normal(size=(d, rank))
    s, t = low @ low.T, positive(d, 5, 0.3, 2.5)
    rest = np.eye(d) - t
    zero = np.zeros(d)
    found = frechet_distance(zero, s, zero, t @ s @ t)
    assert found == pytest.approx(np.trace(rest @ s @ rest), rel=1e-11)


@pytest.mark.parametrize(("d", "rank"), [(64, 20), (256, 100)])
def test_rank_deficient_covariances_are_exact(d: int, rank: int) -> None:
    """Summing square roots of noise eigenvalues (1e-16 each) would be 1e-8 off."""
    rng, q = np.random.default_rng(rank), rotation(d)
    a, b = np.zeros(d), np.zeros(d)
    a[:rank], b[:rank] = rng.uniform(0.1, 5, rank), rng.uniform(0.1, 5, rank)
    zero = np.zeros(d)
    expected = np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    found = frechet_distance(zero, (q * a) @ q.T, zero, (q * b) @ q.T)
    assert found == pytest.approx(expected, rel=1e-12)


def test_rank_one_covariances() -> None:
    """tr (a a^T b b^T)^(1/2) = |a . b|, and tr (a a^T S)^(1/2) = sqrt(a^T S a)."""
    rng = np.random.default_rng(0)
    a, b, s = rng.normal(size=30), rng.normal(size=30), positive(30, 2)
    outer = np.outer(a, a)
    assert trace_sqrt_product(outer, np.outer(b, b)) == pytest.approx(abs(a @ b), rel=1e-12)
    assert trace_sqrt_product(outer, s) == pytest.approx(np.sqrt(a @ s @ a), rel=1e-12)
    assert trace_sqrt_product(s, outer) == pytest.approx(np.sqrt(a @ s @ a), rel=1e-12)


def test_disjoint_subspaces_have_no_cross_term() -> None:
    q = rotation(20)
    s1, s2 = q[:, :6] @ q[:, :6].T, q[:, 6:9] @ q[:, 6:9].T
    assert frechet_distance(np.zeros(20), s1, np.zeros(20), s2) == pytest.approx(9, rel=1e-12)


def test_constant_features() -> None:
    """Every image alike: no covariance on one side, then on both."""
    d, s = 12, positive(12, 0)
    mean, zeros = np.arange(d) / 10.0, np.zeros((d, d))
    expected = mean @ mean + np.trace(s)
    assert frechet_distance(mean, zeros, np.zeros(d), s) == pytest.approx(expected, rel=1e-14)
    assert frechet_distance(np.zeros(d), s, mean, zeros) == pytest.approx(expected, rel=1e-14)
    assert frechet_distance(mean, zeros, np.zeros(d), zeros) == pytest.approx(mean @ mean)
    assert frechet_distance_of_features(np.ones((5, d)), np.zeros((4, d))) == pytest.approx(d)


def test_a_constant_feature_adds_its_offset_only() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(400, 6)), rng.normal(size=(300, 6)) * 1.3
    plain = frechet_distance_of_features(x, y)
    wide_x, wide_y = (np.column_stack([f, np.full(len(f), c)]) for f, c in ((x, 2.0), (y, 5.0)))
    assert frechet_distance_of_features(wide_x, wide_y) == pytest.approx(plain + 9, rel=1e-10)


@pytest.mark.parametrize("rank", [50, 8])
def test_identical_sets_are_at_distance_zero(rank: int) -> None:
    low = np.random.default_rng(1).normal(size=(50, rank))
    s, mean = low @ low.T, np.arange(50.0)
    assert frechet_distance(mean, s, mean, s) <= 1e-11 * np.trace(s)


@pytest.mark.parametrize(("n", "d"), [(24, 48), (100, 20)])
def test_a_set_and_its_copy_are_at_distance_zero_exactly(n: int, d: int) -> None:
    rows = np.random.default_rng(n).gamma(2.0, 50.0, size=(n, d)).astype(np.float32)
    moments = feature_moments(rows)
    assert frechet_distance_of_features(rows, rows.copy()) == 0
    assert frechet_distance_to_features(moments, rows) == 0
    assert frechet_distance_of_features(rows, rows + np.float32(1e-3)) > 0


def test_symmetric_and_never_negative() -> None:
    s1, s2, mean = positive(30, 0), positive(30, 9), np.zeros(30)
    there, back = frechet_distance(mean, s1, mean, s2), frechet_distance(mean, s2, mean, s1)
    assert there == pytest.approx(back, rel=1e-12) and there > 0
    nudged = s1 * (1 + 1e-15)
    assert frechet_distance(mean, s1, mean, nudged) >= 0


def test_a_cached_factor_changes_nothing() -> None:
    for s1 in (positive(20, 0), np.outer(np.arange(20.0), np.arange(20.0))):
        s2, zero = positive(20, 4), np.zeros(20)
        factor = covariance_factor(s1)
        np.testing.assert_allclose(factor @ factor.T, s1, atol=1e-10)
        whole = frechet_distance(zero, s1, zero, s2)  # which makes s1 exactly symmetric first
        assert frechet_distance(zero, s1, zero, s2, factor) == pytest.approx(whole, rel=1e-13)


@pytest.mark.parametrize(("n", "m", "d"), [(20, 15, 60), (300, 200, 30), (20, 200, 60)])
def test_features_and_their_moments_agree(n: int, m: int, d: int) -> None:
    """Few rows take the low-rank path, which never forms a covariance."""
    rng = np.random.default_rng(n)
    mixing = rng.normal(size=(d, d)) / np.sqrt(d)
    x, y = rng.normal(size=(n, d)), rng.normal(size=(m, d)) @ mixing + 0.2
    a, b = feature_moments(x), feature_moments(y)
    through_moments = frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    assert frechet_distance_of_features(x, y) == pytest.approx(through_moments, rel=1e-11)


def test_few_rows_against_a_closed_form() -> None:
    """Two points a side: rank-1 covariances u u^T / 2, so the cross term is |u . v| / 2."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 500)), rng.normal(size=(2, 500))
    u, v = x[0] - x[1], y[0] - y[1]
    offset = x.mean(0) - y.mean(0)
    expected = offset @ offset + (u @ u) / 2 + (v @ v) / 2 - abs(u @ v)
    assert frechet_distance_of_features(x, y) == pytest.approx(expected, rel=1e-13)


def test_nuclear_norm() -> None:
    assert nuclear_norm(np.diag([3.0, -4.0])) == pytest.approx(7)
    assert nuclear_norm(np.zeros((3, 0))) == 0.0


def test_trouble_is_one_line() -> None:
    mean, s = np.zeros(3), np.eye(3)
    broken = s.copy()
    broken[0, 0] = np.nan
    with pytest.raises(PagodaError, match="covariance holds NaN"):
        frechet_distance(mean, broken, mean, s)
    with pytest.raises(PagodaError, match="mean holds NaN"):
        frechet_distance(mean, s, mean + np.inf, s)
    with pytest.raises(PagodaError, match="differ in dimension"):
        frechet_distance(mean, s, np.zeros(4), np.eye(4))
    with pytest.raises(PagodaError, match="do not belong together"):
        frechet_distance(mean, np.ones(3), mean, s)
    with pytest.raises(PagodaError, match="one feature network"):
        frechet_distance_of_features(np.zeros((5, 3)), np.zeros((5, 4)))
    with pytest.raises(PagodaError, match="1 images have no covariance"):
        frechet_distance_of_features(np.zeros((5, 3)), np.zeros((1, 3)))
    with pytest.raises(PagodaError, match="first in row 2"):
        frechet_distance_of_features(np.array([[0.0], [1.0], [np.nan]]), np.zeros((2, 1)))


SPECTRA: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "1/i": lambda i: 1 / i,
    "1/i^2": lambda i: i**-2.0,
    "exp": lambda i: np.exp(-20.48 * i / i.size),  # to 1e-9
    "flat": np.ones_like,
}


def spread(spectrum: str, q: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Variances near a spectrum, and the covariance that has them along the columns of q."""
    near = np.random.default_rng(seed).uniform(0.5, 1.5, len(q))
    a = SPECTRA[spectrum](np.arange(1.0, len(q) + 1)) * near
    covariance = (q * a) @ q.T
    return a, (covariance + covariance.T) / 2


@pytest.mark.parametrize("spectrum", SPECTRA)
@pytest.mark.parametrize("scale", [1.0, 1e-12, 1e12])
def test_steep_spectra_are_exact_without_singular_values(
    spectrum: str, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Small eigenvalues keep their digits, and the estimate of the error says so."""

    def never(matrix: np.ndarray) -> float:
        raise AssertionError("the slow way was taken")

    monkeypatch.setattr(frechet, "nuclear_norm", never)
    q, zero = rotation(200), np.zeros(200)
    (a, s1), (b, s2) = spread(spectrum, q, 1), spread(spectrum, q, 2)
    expected, s1, s2 = np.sum((np.sqrt(a) - np.sqrt(b)) ** 2) * scale, s1 * scale, s2 * scale
    assert frechet_distance(zero, s1, zero, s2) == pytest.approx(expected, rel=1e-10)
    assert frechet_distance(zero, s1, zero, s1) <= 1e-11 * np.trace(s1)


@pytest.mark.parametrize("first", SPECTRA)
@pytest.mark.parametrize("second", SPECTRA)
def test_against_fifty_digits(first: str, second: str) -> None:
    """Matrices that do not commute; the last pairs are not graded, so that the Gram fails."""
    s1, s2 = spread(first, rotation(14, 3))[1], spread(second, rotation(14, 4))[1]
    with mpmath.workdps(50):
        lower, other = mpmath.cholesky(mpmath.matrix(s1.tolist())), mpmath.matrix(s2.tolist())
        values = mpmath.eigsy(lower.T * other * lower, eigvals_only=True)
        expected = float(sum(mpmath.sqrt(v) for v in values))
    assert trace_sqrt_product(s1, s2) == pytest.approx(expected, rel=1e-11)
    a1, a2 = covariance_factor(s1), covariance_factor(s2)
    assert nuclear_norm(a1.T @ a2) == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("d", [2, 40, 150])
def test_noise_of_a_singular_covariance_does_not_count(d: int) -> None:
    """Variances that fall for one and rise for the other, half of which are zero."""
    i, q, zero = np.arange(1.0, d + 1), rotation(d, 7), np.zeros(d)
    a, b = np.where(i == 1, 1, 1e-7), np.where(i > d // 2, i**-3.0, 0)
    expected = np.sum((np.sqrt(a) - np.sqrt(b)) ** 2)
    for s1, s2 in (((q * a) @ q.T, (q * b) @ q.T), ((q * b) @ q.T, (q * a) @ q.T)):
        assert frechet_distance(zero, s1, zero, s2) == pytest.approx(expected, rel=1e-10)


def test_float32_features_are_computed_in_float64() -> None:
    rng = np.random.default_rng(0)
    for n in (30, 90):  # below and above d
        x, y = (rng.normal(size=(n, 50)).astype(np.float32) + 1000 for _ in range(2))
        wide = frechet_distance_of_features(x.astype(np.float64), y.astype(np.float64))
        assert frechet_distance_of_features(x, y) == wide


@pytest.mark.parametrize("spectrum", SPECTRA)
def test_few_rows_with_a_steep_spectrum(spectrum: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """30 rows and their images under an optimal map, by features, moments, and a thin factor."""
    rng, q = np.random.default_rng(1), rotation(120)
    x = (rng.normal(size=(30, 120)) * np.sqrt(spread(spectrum, q)[0])) @ q.T
    x -= x.mean(axis=0)
    moved = x - x @ positive(120, 4, 0.3, 2.5)
    expected = pytest.approx(np.sum(moved**2) / 29, rel=1e-10)
    a, b = feature_moments(x), feature_moments(x - moved)
    assert frechet_distance_of_features(x, x - moved) == expected
    assert frechet_distance(a.mean, a.covariance, b.mean, b.covariance) == expected
    monkeypatch.setattr(frechet, "covariance_factor", None)  # the rows are the factors
    found = frechet_distance(a.mean, a.covariance, b.mean, b.covariance, a.factor, factor2=b.factor)
    assert found == expected


@pytest.mark.parametrize("fall", [1.0, 0.3, 0.03])
def test_steep_covariances_that_do_not_commute(fall: float) -> None:
    """Against eigenvalues with 60 digits."""
    d = 14
    rng = np.random.default_rng(5)
    roots = [np.linalg.qr(rng.normal(size=(d, d)))[0] * fall ** (np.arange(d) / 2) for _ in "ab"]
    s1, s2 = (root @ root.T for root in roots)
    with mpmath.workdps(60):
        first, second = mpmath.matrix(s1.tolist()), mpmath.matrix(s2.tolist())
        values = mpmath.eig(first * second, left=False, right=False)
        truth = sum(mpmath.sqrt(abs(v)) for v in values)
    # what float64 leaves undetermined of the tail: each entry is rounded to eps
    slack = d * np.sqrt(np.finfo(float).eps * np.trace(s1) * np.trace(s2)) if fall < 0.1 else 0
    assert trace_sqrt_product(s1, s2) == pytest.approx(float(truth), rel=1e-10, abs=slack)


@pytest.mark.parametrize("rank", [30, 12])
@pytest.mark.parametrize("n", [2, 20, 31, 200])
def test_from_statistics_to_few_or_many_features(n: int, rank: int) -> None:
    """Equal to the distance between statistics, also where the reference is singular."""
    rng = np.random.default_rng(n)
    real = rng.normal(size=(300, rank)) @ rng.normal(size=(rank, 30))
    reference, rows = feature_moments(real), rng.normal(size=(n, 30)) * 1.2 + 0.1
    moments = feature_moments(rows)
    expected = frechet_distance(
        reference.mean, reference.covariance, moments.mean, moments.covariance
    )
    assert frechet_distance_to_features(reference, rows) == pytest.approx(expected, rel=1e-11)


def test_few_rows_of_features_are_exact() -> None:
    """x and T x, T symmetric and positive, 30 rows in 200 dimensions: |x - T x|^2 / (n - 1)."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(30, 200))
    x -= x.mean(axis=0)
    moved = x - x @ positive(200, 4, 0.3, 2.5)
    found = frechet_distance_of_features(x, x - moved)
    assert found == pytest.approx(np.sum(moved**2) / 29, rel=1e-12)


def test_more_trouble_is_one_line() -> None:
    reference = feature_moments(np.random.default_rng(0).normal(size=(9, 4)))
    with pytest.raises(PagodaError, match="features differ in dimension"):
        frechet_distance_to_features(reference, np.zeros((3, 5)))
    with pytest.raises(PagodaError, match="1 images have no covariance"):
        frechet_distance_to_features(reference, np.zeros((1, 4)))
