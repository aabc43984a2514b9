"""The Gaussian discrepancy: definition, closed form, digits."""

from __future__ import annotations

import numpy as np
import pytest

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics import discrepancy
from pagoda.evaluation.metrics.mmd import gaussian_mmd


def kernel(a: np.ndarray, b: np.ndarray, sigma: float) -> np.ndarray:
    gaps = ((a[:, None] - b[None]) ** 2).sum(-1)
    return np.asarray(np.exp(-gaps / (2 * sigma**2)))


@pytest.mark.parametrize("tile", [1, 7, 1024])
def test_equals_the_definition(tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discrepancy, "_TILE", tile)
    rng = np.random.default_rng(0)
    x, y, sigma = rng.normal(size=(25, 6)), rng.normal(size=(31, 6)) + 0.4, 1.5
    own_x, own_y, cross = kernel(x, x, sigma), kernel(y, y, sigma), kernel(x, y, sigma)
    biased = own_x.mean() + own_y.mean() - 2 * cross.mean()
    others = [(k.sum() - len(k)) / (len(k) * (len(k) - 1)) for k in (own_x, own_y)]
    unbiased = sum(others) - 2 * cross.mean()
    assert gaussian_mmd(x, y, sigma, 7.0) == pytest.approx(7 * biased, rel=1e-12)
    assert gaussian_mmd(x, y, sigma, 7.0, unbiased=True) == pytest.approx(7 * unbiased, rel=1e-12)


def test_two_points_at_a_distance() -> None:
    """One point a side at distance r: 2 (1 - exp(-r^2 / (2 sigma^2))), however small r is."""
    for r in (3.0, 1e-4):
        found = gaussian_mmd(np.array([[0.0, r]]), np.array([[0.0, 0.0]]), 10.0, 1.0)
        assert found == pytest.approx(-2 * np.expm1(-(r**2) / 200), rel=1e-9)


def test_the_unbiased_estimate_averages_to_the_closed_form() -> None:
    """Of N(0, 1) and N(t, 1): 2 s / sqrt(s^2 + 2) (1 - exp(-t^2 / (2 s^2 + 4))) for width s."""
    s, t, rng = 1.3, 0.8, np.random.default_rng(1)
    expected = 2 * s / np.sqrt(s**2 + 2) * (1 - np.exp(-(t**2) / (2 * (s**2 + 2))))
    values = [
        gaussian_mmd(rng.normal(size=(20, 1)), rng.normal(size=(15, 1)) + t, s, 1.0, unbiased=True)
        for _ in range(3000)
    ]
    assert abs(np.mean(values) - expected) < 4 * np.std(values) / np.sqrt(len(values))


def test_unit_vectors_near_each_other_keep_their_digits() -> None:
    """Kernel values near 1, as with CLIP: three float64 means agree to rounding only."""
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(60, 32)), rng.normal(size=(50, 32)) + 0.05
    x, y = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (x, y))
    plain = kernel(x, x, 10).mean() + kernel(y, y, 10).mean() - 2 * kernel(x, y, 10).mean()
    found = gaussian_mmd(x, y)
    assert found == pytest.approx(1000 * plain, rel=1e-9)
    assert gaussian_mmd(x.astype(np.float32), y.astype(np.float32)) == pytest.approx(
        found, rel=1e-5
    )


@pytest.mark.parametrize(
    ("shift", "theirs"), [(0.05, 0.08366126527636908), (0.5, 2.001906469172754)]
)
def test_equals_what_cmmd_pytorch_gave(shift: float, theirs: float) -> None:
    """Its ``distance.mmd`` at f7673a9 on the same float64 features, run once under torch 2.15."""
    rng = np.random.default_rng(0)
    for t in (0.05, 0.5):
        x, y = rng.normal(size=(400, 64)), rng.normal(size=(300, 64)) + t
        if t == shift:
            break
    x, y = (f / np.linalg.norm(f, axis=1, keepdims=True) for f in (x, y))
    assert gaussian_mmd(x, y) == pytest.approx(theirs, rel=1e-10)


def test_identical_sets() -> None:
    x = np.random.default_rng(3).normal(size=(40, 5))
    assert gaussian_mmd(x, x) == pytest.approx(0, abs=1e-12)
    assert gaussian_mmd(x, x, unbiased=True) < 0


def test_trouble_is_one_line() -> None:
    x = np.zeros((4, 3))
    with pytest.raises(PagodaError, match="use one network"):
        gaussian_mmd(x, x[:, :2])
    with pytest.raises(PagodaError, match="2 or more images"):
        gaussian_mmd(x, x[:1], unbiased=True)
    with pytest.raises(PagodaError, match="NaN"):
        gaussian_mmd(x + np.nan, x)
