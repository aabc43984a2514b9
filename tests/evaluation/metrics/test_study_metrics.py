"""Drift, normality, high-frequency energy and failure signatures against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from pagoda.evaluation.metrics.drift import drift, shrink
from pagoda.evaluation.metrics.failure import SIGNATURES, gradient_spread, logit_gap, signatures
from pagoda.evaluation.metrics.high_frequency import high_frequency_energy, high_frequency_error
from pagoda.evaluation.metrics.normality import ks_distance, normality
from pagoda.pipeline.stages.measure import drifted


def _textures(n: int, size: int) -> np.ndarray:
    """Smooth random images: a coarse grid, enlarged by cosine interpolation."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:size, :size] / size
    waves = np.zeros((n, 3, size, size))
    for ky, kx in ((1, 0), (0, 1), (1, 1), (2, 1), (1, 2)):
        phase = rng.uniform(0, 2 * np.pi, (n, 3, 1, 1))
        waves += rng.uniform(5, 20, (n, 3, 1, 1)) * np.cos(2 * np.pi * (ky * y + kx * x) + phase)
    return (128 + waves).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize(("dy", "dx"), [(0, 0), (1, 0), (0, -2), (2, 1)])
def test_drift_finds_a_whole_displacement(dy: int, dx: int) -> None:
    low = _textures(6, 16)
    moved = np.roll(low, (dy, dx), axis=(2, 3))
    found = drift(moved.repeat(2, axis=2).repeat(2, axis=3), low)
    np.testing.assert_allclose(found.pixels, np.hypot(dy, dx), atol=0.1)


def test_images_that_are_too_small_to_look_in_have_no_drift() -> None:
    small, above = _textures(3, 4), _textures(3, 8)
    assert drifted(above, small) == {}
    assert {metric: name for metric, (name, _) in drifted(_textures(3, 16), above).items()} == {
        "drift": "drift_px_3", "drift_mse": "drift_mse_3"
    }  # fmt: skip


def test_drift_finds_half_a_pixel() -> None:
    high = _textures(8, 64)
    low = np.round((shrink(high, 16) + 1) * 127.5).astype(np.uint8)
    moved = np.roll(high, 2, axis=3)  # 2 of 64 pixels are half of one of 16
    np.testing.assert_allclose(drift(moved, low).pixels, 0.5, atol=0.2)


def test_an_image_without_texture_does_not_move_and_mse_is_the_mean_square() -> None:
    flat = np.full((2, 3, 8, 8), 100, np.uint8)
    found = drift(np.full((2, 3, 16, 16), 151, np.uint8), flat)
    np.testing.assert_array_equal(found.pixels, 0)
    np.testing.assert_allclose(found.mse, (51 / 127.5) ** 2, rtol=1e-5)


def test_standard_normal_latents_pass_and_shrunken_ones_do_not() -> None:
    z = np.random.default_rng(1).standard_normal((2000, 3, 8, 8)).astype(np.float32)
    found = normality(z)
    assert abs(found.mean) < 0.01
    assert found.std == pytest.approx(1, abs=0.01)
    assert found.kurtosis == pytest.approx(3, abs=0.05)
    assert abs(found.skewness) < 0.02
    assert found.ks_norms < 1.63 / np.sqrt(len(z))  # 1 % critical value by Kolmogorov
    assert abs(found.neighbour_correlation) < 0.01
    inside = normality(0.8 * z)  # distances of the distributions are known
    grid = np.linspace(0, 3, 30001)
    from scipy.stats import chi2, norm

    norms = np.linspace(60, 320, 30001)
    gap = np.abs(chi2.cdf(norms / 0.64, 192) - chi2.cdf(norms, 192)).max()
    assert inside.ks_norms == pytest.approx(gap, abs=0.04)
    assert inside.ks_entries == pytest.approx(
        (norm.cdf(grid / 0.8) - norm.cdf(grid)).max(), abs=5e-3
    )


def test_ks_distance_agrees_with_scipy() -> None:
    from scipy.stats import kstest, norm

    x = np.random.default_rng(2).standard_t(3, 500)
    assert ks_distance(norm.cdf(x)) == pytest.approx(kstest(x, "norm").statistic, rel=1e-12)


def test_high_frequency_energy_of_waves() -> None:
    """A cosine of amplitude a has mean square a^2 / 2; only fast ones count."""
    x = np.arange(16)
    for cycles, fraction in ((2, 0.0), (6, 1.0)):
        wave = 127.5 + 100 * np.cos(2 * np.pi * cycles * x / 16)
        images = np.broadcast_to(np.round(wave), (4, 3, 16, 16)).astype(np.uint8)
        expected = fraction * (100 / 127.5) ** 2 / 2
        assert high_frequency_energy(images) == pytest.approx(expected, rel=0.01, abs=1e-4)
        grey = np.full_like(images, 127)
        assert high_frequency_error(images, grey) == pytest.approx(expected, rel=0.01, abs=1e-4)


def test_signatures_are_named_by_what_went_wrong() -> None:
    well = {"energy_ratio": 1.0, "recall_ratio": 1.0, "gradient_spread": 2.0, "logit_gap": 1.0}
    assert signatures(**well) == []
    ill = {"energy_ratio": 0.2, "gradient_spread": 50.0, "logit_gap": 20.0, "recall_ratio": 0.1}
    for (key, value), name in zip(ill.items(), SIGNATURES, strict=True):
        assert signatures(**(well | {key: value})) == [name]


def test_stability_is_read_from_the_late_part_of_a_curve() -> None:
    rows = [{"grad_norm": 100.0}] * 4 + [{"grad_norm": 1.0}] * 3 + [{"grad_norm": 7.0}]
    assert gradient_spread(rows) == 7.0
    rows = [{"logit_real": 9.0, "logit_fake": 0.0}] * 6 + [
        {"logit_real": 1.0, "logit_fake": -2.0}
    ] * 2
    assert logit_gap(rows) == 3.0
    assert logit_gap([{"grad_norm": 1.0}]) == 0.0
