"""Measures of edits in closed form."""

from __future__ import annotations

import numpy as np
import pytest

from pagoda.evaluation.metrics.edits import (
    diversity,
    hole_psnr,
    path_length,
    seam_jump,
    succession,
)
from pagoda.evaluation.metrics.image_pairs import psnr

HOLE = np.zeros((2, 1, 8, 8), bool)
HOLE[:, :, 2:6, 2:6] = True


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)


def test_psnr_in_a_hole_is_that_of_the_cut_out_hole() -> None:
    a, b = noise(0), noise(1)
    cut = [np.ascontiguousarray(x[:, :, 2:6, 2:6]) for x in (a, b)]
    np.testing.assert_allclose(hole_psnr(a, b, HOLE), psnr(*cut))
    outside = np.where(HOLE, a, b)  # what is not in the hole does not count
    np.testing.assert_allclose(hole_psnr(outside, b, HOLE), psnr(*cut))
    np.testing.assert_allclose(hole_psnr(a, b, np.ones_like(HOLE)), psnr(a, b))


def test_a_seam_is_seen_where_a_hole_is_shifted_and_not_elsewhere() -> None:
    grey = np.full((2, 3, 8, 8), 100, np.uint8)
    shifted = np.where(HOLE, grey + 51, grey).astype(np.uint8)
    np.testing.assert_allclose(seam_jump(shifted, grey, HOLE), 51 / 127.5)
    np.testing.assert_allclose(seam_jump(grey, shifted, HOLE), -51 / 127.5)
    inside = grey.copy()
    inside[:, :, 3:5, 3:5] = 255  # not at the edge
    np.testing.assert_allclose(seam_jump(inside, grey, HOLE), 0)


def test_diversity_is_the_mean_distance_of_pairs() -> None:
    triangle = np.array([[[0.0, 0], [3, 0], [0, 4]], [[1, 1], [1, 1], [1, 1]]])
    np.testing.assert_allclose(diversity(triangle), [(3 + 4 + 5) / 3, 0])


def test_rates_of_succession() -> None:
    assert succession(np.zeros(8, bool)) == pytest.approx(1 / 10)
    assert succession(np.ones(8, bool)) == pytest.approx(9 / 10)
    assert succession(np.arange(8) < 4) == pytest.approx(0.5)


def test_the_path_length_of_a_straight_line_is_its_squared_speed() -> None:
    t = np.random.default_rng(0).uniform(size=(50, 1))
    speed = np.array([3.0, 4.0])
    assert path_length(t * speed, (t + 1e-3) * speed, 1e-3) == pytest.approx(25)
    outlier = (t + 1e-3) * speed
    many, more = np.tile(t * speed, (4, 1)), np.tile(outlier, (4, 1))
    more[0] += 100  # above the 99th percentile of 200 values, as is the one beside it at most
    assert path_length(many, more, 1e-3) == pytest.approx(25)
