"""High-frequency energy of waves whose fraction is known."""

from __future__ import annotations

import numpy as np
import pytest

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.high_frequency import high_frequency_fractions


def wave(fx: float, fy: float, side: int = 32, height: float = 1.0) -> np.ndarray:
    """A cosine of whole periods, (1, 1, side, side)."""
    y, x = np.mgrid[:side, :side]
    return np.asarray(height * np.cos(2 * np.pi * (fx * x + fy * y)))[None, None]


@pytest.mark.parametrize(
    ("fx", "fy", "fraction"),
    [(2 / 32, 0, 0), (0, 7 / 32, 0), (9 / 32, 0, 1), (0, 0.5, 1), (6 / 32, 7 / 32, 1),
     (5 / 32, 6 / 32, 0), (8 / 32, 0, 0)],
)  # fmt: skip
def test_one_wave(fx: float, fy: float, fraction: float) -> None:
    """The radius counts, not the axis; 0.25 itself is not above 0.25."""
    assert high_frequency_fractions(wave(fx, fy) + 5)[0] == pytest.approx(fraction, abs=1e-12)


def test_two_waves_share_by_squared_height() -> None:
    mixed = wave(2 / 32, 0, height=3.0) + wave(11 / 32, 0, height=2.0) + 100
    assert high_frequency_fractions(mixed)[0] == pytest.approx(4 / 13, rel=1e-12)
    assert high_frequency_fractions(mixed, above=0.4)[0] == pytest.approx(0, abs=1e-12)
    assert high_frequency_fractions(7 * mixed - 3)[0] == pytest.approx(4 / 13, rel=1e-12)


def test_channels_are_pooled_and_images_are_not() -> None:
    low, high = wave(1 / 32, 0), wave(0, 12 / 32)
    images = np.concatenate([np.concatenate([low, high], 1), np.concatenate([low, low], 1)])
    np.testing.assert_allclose(high_frequency_fractions(images), [0.5, 0], atol=1e-12)


def test_white_noise_has_the_share_of_the_area() -> None:
    noise = np.random.default_rng(0).normal(size=(40, 3, 64, 64))
    found = high_frequency_fractions(noise).mean()
    assert found == pytest.approx(1 - np.pi * 0.25**2, abs=0.005)


def test_one_colour_has_no_power() -> None:
    flat = np.full((2, 3, 8, 8), 77, np.uint8)
    assert np.array_equal(high_frequency_fractions(flat), [0, 0])
    assert high_frequency_fractions(np.full((1, 1, 7, 9), 0.1))[0] == 0


def test_trouble_is_one_line() -> None:
    with pytest.raises(PagodaError, match="height, width"):
        high_frequency_fractions(np.zeros((8, 8)))
    with pytest.raises(PagodaError, match="NaN"):
        high_frequency_fractions(np.full((1, 1, 8, 8), np.nan))
    with pytest.raises(PagodaError, match=r"above 0.8 cycles"):
        high_frequency_fractions(np.zeros((1, 1, 8, 8)), above=0.8)
