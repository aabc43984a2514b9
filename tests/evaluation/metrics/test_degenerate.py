"""What must not surprise: a class that is never made, collapse, float32 near coincidences."""

from __future__ import annotations

import numpy as np
import pytest

from pagoda.evaluation.metrics.frechet import frechet_distance_of_features
from pagoda.evaluation.metrics.inception_score import inception_score
from pagoda.evaluation.metrics.kid import kernel_distance
from pagoda.evaluation.metrics.mmd import gaussian_mmd
from pagoda.evaluation.metrics.precision_recall import manifold_scores


def two_classes(n: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, 8)) + np.where(np.arange(n) % 2, 12.0, 0.0)[:, None]


def test_a_class_that_is_missing_shows_in_every_metric() -> None:
    real, full = two_classes(400, 0), two_classes(400, 1)
    half = two_classes(800, 1)[::2]
    for distance in (frechet_distance_of_features, kernel_distance, gaussian_mmd):
        assert distance(real, half) > 10 * abs(distance(real, full))
    scores, whole = manifold_scores(real, half), manifold_scores(real, full)
    assert scores.precision > 0.8 and whole.recall > 0.8
    assert scores.recall < 0.55 and scores.coverage < 0.55


def test_a_class_that_is_missing_lowers_the_score_to_the_classes_that_are_left() -> None:
    sure = np.eye(10)[np.arange(900) % 9]
    assert inception_score(sure, 10)[0] == pytest.approx(9, rel=1e-12)


def test_one_image_over_and_over() -> None:
    """No spread at all: the distance keeps the reference's trace, precision is 0 or 1."""
    real = two_classes(300, 2)
    same = np.tile(real.mean(axis=0), (50, 1))
    trace = np.trace(np.cov(real, rowvar=False))
    assert frechet_distance_of_features(real, same) == pytest.approx(trace, rel=1e-12)
    assert manifold_scores(real, same).recall == 0.0


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_copied_set_in_either_precision(dtype: type) -> None:
    """Memorised images: every copy lies in the ball of its original, whatever the rounding."""
    rng = np.random.default_rng(3)
    real: np.ndarray = (rng.normal(size=(500, 256)) * 3 + 40).astype(dtype)
    found = manifold_scores(real, real[rng.permutation(500)])
    assert found.precision == found.recall == found.coverage == 1.0
    doubled = np.concatenate([real[:100]] * 4)
    found = manifold_scores(doubled, doubled, 3)  # radii are 0: every third neighbour is a copy
    assert found.precision == found.recall == found.coverage == 1.0
    assert found.density == pytest.approx(4 / 3)


def test_float32_kernels_sum_as_float64_ones() -> None:
    rng = np.random.default_rng(5)
    x, y = (np.maximum(rng.normal(size=(600, 256)) + s, 0).astype(np.float32) for s in (0.3, 0.32))
    wide = kernel_distance(x.astype(np.float64), y.astype(np.float64))
    assert kernel_distance(x, y) == pytest.approx(wide, abs=3e-8)


def test_a_constant_feature_changes_no_manifold() -> None:
    real, full = two_classes(200, 6), two_classes(150, 7)
    wide_real, wide = (np.column_stack([f, np.full(len(f), 9.0)]) for f in (real, full))
    assert manifold_scores(wide_real, wide) == manifold_scores(real, full)
