"""The torch path of each heavy metric gives numpy's values; TF32 is off while it runs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics import discrepancy, distances
from pagoda.evaluation.metrics.arrays import arrays_on
from pagoda.evaluation.metrics.frechet import (
    frechet_distance,
    frechet_distance_of_features,
    frechet_distance_to_features,
)
from pagoda.evaluation.metrics.kid import kernel_distance, kernel_distance_of_subsets
from pagoda.evaluation.metrics.mmd import gaussian_mmd
from pagoda.evaluation.metrics.precision_recall import manifold_scores, squared_radii
from pagoda.evaluation.metrics.statistics import RunningMoments, feature_moments

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def two_sets(n: int, m: int, d: int, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(n)
    x, y = rng.normal(size=(n, d)) + 0.3, rng.normal(size=(m, d)) * 0.9 + 0.35
    return x.astype(dtype), y.astype(dtype)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 20), (15, 12, 40), (15, 80, 40)])
def test_frechet(device: str, n: int, m: int, d: int) -> None:
    x, y = two_sets(n, m, d, np.float64)
    a, b = feature_moments(x), feature_moments(y)
    here = frechet_distance(a.mean, a.covariance, b.mean, b.covariance)
    there = frechet_distance(a.mean, a.covariance, b.mean, b.covariance, device=device)
    assert there == pytest.approx(here, rel=1e-12)
    assert frechet_distance_of_features(x, y, device) == pytest.approx(here, rel=1e-11)
    assert frechet_distance_to_features(a, y, device=device) == pytest.approx(here, rel=1e-11)


@pytest.mark.parametrize("device", DEVICES)
def test_streaming_statistics(device: str) -> None:
    x, _ = two_sets(100, 1, 6, np.float32)
    here, there = (RunningMoments(6, 16, on) for on in (None, device))
    for running in (here, there):
        for start in range(0, 100, 7):
            running.update(x[start : start + 7])
    expected, found = here.moments(), there.moments()
    assert found.n == 100 and np.array_equal(found.mean, expected.mean)
    np.testing.assert_allclose(found.covariance, expected.covariance, rtol=1e-12, atol=1e-14)
    again = there.moments()  # asking changes nothing
    assert np.array_equal(again.covariance, found.covariance)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("tile", [16, 2048])
def test_manifold(device: str, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "_TILE", tile)
    for dtype in (np.float32, np.float64):
        x, y = two_sets(120, 90, 6, dtype)
        for k in (3, 12):
            expected = manifold_scores(x, y, k)
            assert manifold_scores(x, y, k, device=device) == expected
            radii = squared_radii(x, k, device)
            np.testing.assert_array_equal(radii, squared_radii(x, k))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("tile", [16, 2048])
def test_kernels(device: str, tile: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discrepancy, "_TILE", tile)
    x, y = two_sets(60, 50, 7, np.float64)
    assert kernel_distance(x, y, device) == pytest.approx(kernel_distance(x, y), rel=1e-11)
    here = kernel_distance_of_subsets(x, y, 4, 30, seed=1)
    assert kernel_distance_of_subsets(x, y, 4, 30, 1, device) == pytest.approx(here, rel=1e-10)
    for unbiased in (False, True):
        expected = gaussian_mmd(x, y, unbiased=unbiased)
        found = gaussian_mmd(x, y, unbiased=unbiased, device=device)
        assert found == pytest.approx(expected, rel=1e-10)


def test_reduced_precision_is_off_while_it_runs_and_comes_back() -> None:
    torch.set_float32_matmul_precision("high")
    try:
        with arrays_on("cpu"):
            inside: Any = torch.get_float32_matmul_precision()
        assert inside == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(PagodaError, match="cannot run on device 'abacus'"):
        kernel_distance(np.zeros((3, 2)), np.zeros((3, 2)), "abacus")
