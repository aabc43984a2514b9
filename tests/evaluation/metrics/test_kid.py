"""The kernel distance: definition, expectation, subsets."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics import discrepancy, kid
from pagoda.evaluation.metrics.kid import kernel_distance, kernel_distance_of_subsets


def naive(x: np.ndarray, y: np.ndarray) -> float:
    """The definition, one pair at a time."""

    def k(a: np.ndarray, b: np.ndarray) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    def own(z: np.ndarray) -> float:
        return float(np.mean([k(a, b) for i, a in enumerate(z) for j, b in enumerate(z) if i != j]))

    return own(x) + own(y) - 2 * float(np.mean([k(a, b) for a in x for b in y]))


@pytest.mark.parametrize("block", [1, 7, 2048])
def test_equals_the_definition(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discrepancy, "_TILE", block)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(25, 6)), rng.normal(size=(31, 6)) + 0.4
    assert kernel_distance(x, y) == pytest.approx(naive(x, y), rel=1e-11)


@pytest.mark.parametrize(("mean", "scale"), [(0.0, 1.0), (0.5, 1.2)])
def test_unbiased_on_gaussians(mean: float, scale: float) -> None:
    """In one dimension (1 + xy)^3 = 1 + 3 xy + 3 x^2 y^2 + x^3 y^3: with raw moments m_i,

    MMD^2 = 3 (m_1 - m_1')^2 + 3 (m_2 - m_2')^2 + (m_3 - m_3')^2.
    """
    moments = [mean, mean**2 + scale**2, mean**3 + 3 * mean * scale**2]
    expected = 3 * moments[0] ** 2 + 3 * (moments[1] - 1) ** 2 + moments[2] ** 2
    rng = np.random.default_rng(1)
    values = [
        kernel_distance(rng.normal(size=(20, 1)), rng.normal(mean, scale, size=(15, 1)))
        for _ in range(4000)
    ]
    standard_error = np.std(values) / np.sqrt(len(values))
    assert abs(np.mean(values) - expected) < 4 * standard_error
    if not expected:
        assert min(values) < 0  # an estimate without bias of zero must fall below it at times


def test_subsets_average_to_the_whole() -> None:
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(400, 5)), rng.normal(size=(300, 5)) * 1.3
    mean, deviation = kernel_distance_of_subsets(x, y, subsets=200, subset_size=60, seed=1)
    assert abs(mean - kernel_distance(x, y)) < 4 * deviation / np.sqrt(200)
    whole, none = kernel_distance_of_subsets(x[:300], y, subsets=3, subset_size=300)
    assert whole == pytest.approx(kernel_distance(x[:300], y), rel=1e-10)
    assert none == pytest.approx(0, abs=1e-10)


def clusters(rng: np.random.Generator) -> np.ndarray:
    return np.where(rng.integers(0, 2, 90)[:, None], 1e3, -1e3) + rng.normal(size=(90, 16)) * 0.1


def with_outlier(rng: np.random.Generator) -> np.ndarray:
    rows = rng.normal(size=(90, 16))
    rows[7] *= 1e5
    return rows


@pytest.mark.parametrize(
    ("make", "narrow"),
    [
        (lambda rng: rng.normal(size=(90, 16)), True),
        (lambda rng: rng.normal(size=(90, 16)) + 1e4, True),
        (lambda rng: rng.normal(size=(90, 16)) * 1e-25, True),
        (clusters, True),
        (with_outlier, False),  # its products round by more than all others are
        (lambda rng: rng.normal(size=(90, 16)) * 2.0**100, False),  # beyond float32
        (lambda rng: np.ones((90, 16)), False),  # no deviation at all
    ],
)
def test_products_of_float32_are_used_where_they_cannot_be_seen(
    make: Callable[[np.random.Generator], np.ndarray], narrow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same values from float64 features; the same bits where the products are float64."""
    rng = np.random.default_rng(6)
    x, y = make(rng).astype(np.float32), (make(rng)[8:] * 1.1).astype(np.float32)  # no outlier
    mean, deviation = kernel_distance_of_subsets(x.astype(float), y.astype(float), 6, 40)
    for device in ("cpu", None):
        found = kernel_distance_of_subsets(x, y, 6, 40, device=device)
        assert found == pytest.approx((mean, deviation), rel=1e-9, abs=1e-5 * deviation)
    monkeypatch.setattr(kid, "_SEEN", -1)
    assert (kernel_distance_of_subsets(x, y, 6, 40) != found) == narrow


def test_the_seed_decides() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(90, 4)), rng.normal(size=(80, 4))
    first = kernel_distance_of_subsets(x, y, 5, 40, seed=1)
    assert kernel_distance_of_subsets(x, y, 5, 40, seed=1) == first
    assert kernel_distance_of_subsets(x, y, 5, 40, seed=2) != first


def test_trouble_is_one_line() -> None:
    x = np.zeros((20, 3))
    with pytest.raises(PagodaError, match="subsets of 1000 cannot be drawn from 20 and 20"):
        kernel_distance_of_subsets(x, x)
    with pytest.raises(PagodaError, match="use one network"):
        kernel_distance(x, x[:, :2])
    with pytest.raises(PagodaError, match="2 or more images"):
        kernel_distance(x, x[:1])
    with pytest.raises(PagodaError, match="NaN"):
        kernel_distance(x, x + np.nan)
