"""Manifolds and fractions equal float64 brute force exactly, whatever the features are like."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pagoda.evaluation.metrics import distances
from pagoda.evaluation.metrics.memorisation import train_fraction
from pagoda.evaluation.metrics.precision_recall import manifold_scores, squared_radii

Sets = tuple[np.ndarray, np.ndarray]


def squared(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """All squared distances by float64 differences."""
    wide = b.astype(np.float64)
    return np.array([np.square(wide - row).sum(axis=1) for row in a.astype(np.float64)])


def brute(real: np.ndarray, generated: np.ndarray, k: int) -> dict[str, float]:
    def radii(points: np.ndarray) -> np.ndarray:
        found = squared(points, points)
        np.fill_diagonal(found, np.inf)
        return np.asarray(np.sort(found, axis=1)[:, k - 1])

    gaps = squared(generated, real)
    held = gaps <= radii(real)
    return {
        "precision": float(held.any(axis=1).mean()),
        "recall": float((gaps <= radii(generated)[:, None]).any(axis=0).mean()),
        "density": float(held.sum(axis=1).mean() / k),
        "coverage": float(held.any(axis=0).mean()),
    }


def outlier() -> Sets:
    """One real row far away: about the mean, the norms of all others are large."""
    rng = np.random.default_rng(0)
    real, generated = rng.normal(size=(500, 48)), rng.normal(size=(480, 48))
    real[7] = 1e6
    return real, generated


def clusters(gap: float = 1.0) -> Sets:
    """Two tight clusters that no mean is near; the sets lie apart by ``gap``."""
    rng = np.random.default_rng(1)
    side = np.where(np.arange(400) % 2, 1000.0, -1000.0)[:, None]
    real, generated = (rng.normal(size=(400, 32)) * 0.1 + side + s for s in (0, gap))
    return real, generated


def ordinary() -> Sets:
    """As pooled activations: skewed, correlated, many dimensions, not about zero."""
    rng = np.random.default_rng(2)
    mixing = rng.normal(size=(256, 256)) * np.linspace(1.5, 0.2, 256)[:, None] / 16
    real, generated = (np.maximum(rng.normal(size=(n, 256)) @ mixing + 0.3, 0) for n in (400, 370))
    return real, generated * 1.01


def lattice() -> Sets:
    """Whole numbers in few dimensions: most comparisons are ties, and rows repeat."""
    rng = np.random.default_rng(3)
    return rng.integers(-2, 3, (300, 3)), rng.integers(-2, 4, (280, 3))


def collapsed() -> Sets:
    """Half of the generated rows are one row, the others nearly so; real rows come twice."""
    rng = np.random.default_rng(4)
    real = rng.normal(size=(150, 40)).repeat(2, axis=0)
    generated = np.tile(real[:1], (300, 1))
    generated[150:] += rng.normal(size=(150, 40)) * 1e-6
    return real, generated


CASES = {
    "outlier": outlier(),
    "clusters": clusters(),
    "overlapping clusters": clusters(0.01),
    "ordinary": ordinary(),
    "lattice": lattice(),
    "collapsed": collapsed(),
    "shifted": (outlier()[1] + 1e4, outlier()[0][8:] + 1e4),
    "huge": (ordinary()[0] * 1e30, ordinary()[1] * 1e30),
    "minute": (ordinary()[0] * 1e-25, ordinary()[1] * 1e-25),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_equals_brute_force(name: str, dtype: type[np.floating[Any]]) -> None:
    real, generated = (f.astype(dtype, copy=False) for f in CASES[name])
    for k in (3, 10):
        found = manifold_scores(real, generated, k)._asdict()
        assert found == pytest.approx(brute(real, generated, k), rel=1e-14, abs=0)


@pytest.mark.parametrize("name", CASES)
def test_tiles_and_devices_change_no_bit(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real, generated = (f.astype(np.float32)[:150] for f in CASES[name])
    expected, radii = manifold_scores(real, generated), squared_radii(real, 2)
    assert manifold_scores(real, generated, device="cpu") == expected
    monkeypatch.setattr(distances, "_TILE", 37)
    assert manifold_scores(real, generated) == expected
    assert np.array_equal(squared_radii(real, 2), radii)
    monkeypatch.setattr(distances, "_MANY", 0)  # float32 bounds alone, all else measured
    assert manifold_scores(real, generated) == expected


def test_sets_of_two_types_are_compared_in_the_wider_one() -> None:
    real, generated = clusters(0.01)
    found = manifold_scores(real.astype(np.float32), generated)
    assert found._asdict() == pytest.approx(brute(real.astype(np.float32), generated, 3), rel=1e-14)


def test_near_copies_in_far_clusters_are_all_memorised() -> None:
    rng = np.random.default_rng(5)
    (train, _), (held_out, _) = clusters(), clusters()
    held_out = held_out[:, ::-1]
    copies = train + rng.normal(size=train.shape) * 1e-3
    near, seen, unseen = (f.astype(np.float32) for f in (copies, train, held_out))
    assert (squared(near, seen).min(axis=1) < squared(near, unseen).min(axis=1)).all()
    assert train_fraction(near, seen, unseen).value == 1.0


def test_ties_of_a_share_are_exact() -> None:
    generated, train = lattice()
    held_out = train[:, ::-1]
    t, h = (squared(generated, s).min(axis=1) for s in (train, held_out))
    expected = np.mean(np.where(t == h, 0.5, t < h))
    assert 0 < np.mean(t == h) < 1
    assert train_fraction(generated.astype(np.float32), train, held_out).value == expected
