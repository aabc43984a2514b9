"""Equal to other people's implementations, where they are installed and still work."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pagoda.metrics.frechet import frechet_distance
from pagoda.metrics.kid import kernel_distance_of_subsets
from pagoda.metrics.precision_recall import manifold_scores
from pagoda.metrics.statistics import feature_moments


def features(n: int, d: int, seed: int) -> np.ndarray:
    """Non-negative and skewed, as pooled activations are."""
    rng = np.random.default_rng(seed)
    return np.maximum(rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) / np.sqrt(d) + 0.5, 0)


@pytest.mark.parametrize("d", [8, 100])
def test_scipy_sqrtm(d: int) -> None:
    linalg = pytest.importorskip("scipy.linalg")
    a, b = feature_moments(features(600, d, 0)), feature_moments(features(500, d, 1))
    root = linalg.sqrtm(a.covariance @ b.covariance)
    expected = np.sum((a.mean - b.mean) ** 2) + np.trace(
        a.covariance + b.covariance - 2 * root.real
    )
    found = frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    assert found == pytest.approx(expected, rel=1e-9)


def clean_fid() -> Any:
    """clean-fid's functions; its distance calls ``sqrtm(disp=)``, which scipy 1.18 removed."""
    scipy = pytest.importorskip("scipy")
    if tuple(int(p) for p in scipy.__version__.split(".")[:2]) >= (1, 18):
        pytest.skip("clean-fid's distance does not run with scipy 1.18 or later")
    return pytest.importorskip("cleanfid.fid")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_clean_fid_frechet_distance() -> None:
    peer = clean_fid()
    a, b = feature_moments(features(900, 64, 2)), feature_moments(features(800, 64, 3))
    expected = peer.frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    found = frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    assert found == pytest.approx(expected, rel=1e-9)


def test_clean_fid_kernel_distance() -> None:
    """It draws from numpy's global generator; with subsets of everything the draw is no matter."""
    peer = clean_fid()
    x, y = features(150, 20, 4), features(150, 20, 5)
    expected = peer.kernel_distance(x, y, num_subsets=1, max_subset_size=150)
    found, _ = kernel_distance_of_subsets(x, y, subsets=1, subset_size=150)
    assert found == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("k", [3, 5])
def test_prdc(k: int) -> None:
    peer = pytest.importorskip("prdc")
    real, generated = features(300, 16, 6), features(250, 16, 6) * 1.05
    expected = peer.compute_prdc(real, generated, nearest_k=k)
    found = manifold_scores(real, generated, k)
    assert vars(found) == pytest.approx(expected, rel=1e-12)


def test_torch_fidelity_draws_the_same_subsets() -> None:
    peer = pytest.importorskip("torch_fidelity.metric_kid")
    torch = pytest.importorskip("torch")
    x, y = features(200, 24, 7), features(180, 24, 8)
    expected = peer.kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=10, kid_subset_size=60, verbose=False
    )
    mean, deviation = kernel_distance_of_subsets(x, y, 10, 60, seed=2020)
    assert mean == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-9)
    assert deviation == pytest.approx(expected["kernel_inception_distance_std"], rel=1e-9)
