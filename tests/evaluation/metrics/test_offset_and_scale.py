"""Features far from zero, huge or minute: values against exact rational arithmetic."""

from __future__ import annotations

from fractions import Fraction
from typing import Any, cast

import numpy as np
import pytest

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.drift import drift
from pagoda.evaluation.metrics.fd_infinity import frechet_infinity
from pagoda.evaluation.metrics.frechet import frechet_distance_of_features
from pagoda.evaluation.metrics.high_frequency import high_frequency_energy, high_frequency_error
from pagoda.evaluation.metrics.inception_score import inception_score, probabilities_of
from pagoda.evaluation.metrics.kid import kernel_distance, kernel_distance_of_subsets
from pagoda.evaluation.metrics.mmd import gaussian_mmd
from pagoda.evaluation.metrics.normality import normality
from pagoda.evaluation.metrics.precision_recall import manifold_scores, squared_radii
from pagoda.evaluation.metrics.statistics import feature_moments

Rows = list[list[Fraction]]


def two_sets(offset: float, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Float32 multiples of 1/256, which an offset of 1e4 leaves exact."""
    rng = np.random.default_rng(0)
    x, y = (np.round(rng.normal(size=(n, 4)) * 256) / 256 for n in (9, 11))
    near, far = (((f + offset) * scale).astype(np.float32) for f in (x, y + 0.25))
    return near, far


def exact(features: np.ndarray) -> Rows:
    return [[Fraction(float(v)) for v in row] for row in features]


def exact_kernel_distance(x: np.ndarray, y: np.ndarray) -> float:
    def mean(a: Rows, b: Rows) -> Fraction:
        values = [
            (sum((p * q for p, q in zip(u, v, strict=True)), Fraction(0)) / len(u) + 1) ** 3
            for i, u in enumerate(a)
            for j, v in enumerate(b)
            if a is not b or i != j
        ]
        return sum(values, Fraction(0)) / len(values)

    a, b = exact(x), exact(y)
    return float(mean(a, a) + mean(b, b) - 2 * mean(a, b))


@pytest.mark.parametrize(
    ("offset", "scale"), [(0, 1), (1e4, 1), (-1e4, 1), (0, 2.0**100), (0, 2.0**-60)]
)
def test_kernel_distance(offset: float, scale: float) -> None:
    x, y = two_sets(offset, scale)
    # Values of 1e-37 beside kernels of 1 are beyond float64's digits for any method.
    expected = pytest.approx(exact_kernel_distance(x, y), rel=1e-9, abs=1e-30 if scale < 1 else 0)
    assert kernel_distance(x, y) == expected
    assert kernel_distance(x, y, "cpu") == expected
    whole, deviation = kernel_distance_of_subsets(x, y[:9], 2, 9)
    assert whole == pytest.approx(kernel_distance(x, y[:9]), rel=1e-9, abs=1e-30)
    assert deviation < 1e-9 * abs(whole) + 1e-30


@pytest.mark.parametrize("offset", [0.0, 1e4])
def test_moments(offset: float) -> None:
    x, _ = two_sets(offset)
    rows = exact(x)
    mean = [sum(column, Fraction(0)) / len(rows) for column in zip(*rows, strict=True)]
    covariance = [
        [sum((r[i] - mean[i]) * (r[j] - mean[j]) for r in rows) / (len(rows) - 1)
         for j in range(4)] for i in range(4)
    ]  # fmt: skip
    found = feature_moments(x)
    np.testing.assert_allclose(found.mean, np.array(mean, float), rtol=1e-15, atol=1e-16)
    np.testing.assert_allclose(found.covariance, np.array(covariance, float), rtol=1e-11)


def test_what_only_differences_count_for_is_the_same_far_from_zero() -> None:
    (x, y), (far_x, far_y) = two_sets(0), two_sets(1e4)
    assert gaussian_mmd(far_x, far_y, 2) == pytest.approx(gaussian_mmd(x, y, 2), rel=1e-12)
    distance = frechet_distance_of_features(x, y)
    assert frechet_distance_of_features(far_x, far_y) == pytest.approx(distance, rel=1e-10)
    lines = [frechet_infinity(feature_moments(a), b, 3) for a, b in ((x, y), (far_x, far_y))]
    assert lines[1].value == pytest.approx(lines[0].value, rel=1e-9)
    assert manifold_scores(far_x, far_y) == manifold_scores(x, y)


def test_latents_and_logits_far_from_zero() -> None:
    rng = np.random.default_rng(1)
    z = np.round(rng.normal(size=(50, 3, 4, 4)) * 256).astype(np.float32) / 256
    near, far = (vars(normality(f)) for f in (z, z + np.float32(1e4)))
    for name in ("std", "skewness", "kurtosis", "neighbour_correlation"):
        assert far[name] == pytest.approx(near[name], rel=1e-9)
    logits = np.round(rng.normal(size=(40, 5)) * 64).astype(np.float32) / 64
    scores = [inception_score(probabilities_of(f), 4) for f in (logits, logits + 1e5)]
    assert scores[0] == pytest.approx(scores[1], rel=1e-12)


def test_faint_detail_beside_strong_shapes_keeps_its_energy() -> None:
    """A checkerboard of one level in one channel, on a ramp of 200: by Parseval's theorem."""
    flat = np.zeros((1, 3, 16, 16), np.uint8)
    board = flat.copy()
    board[:, 1] += (np.indices((16, 16)).sum(0) % 2).astype(np.uint8)
    expected = (0.587 * 0.5 / 127.5) ** 2
    assert high_frequency_energy(board + np.uint8(200)) == pytest.approx(expected, rel=1e-12)
    assert high_frequency_error(board + np.uint8(200), flat) == pytest.approx(expected, rel=1e-12)
    assert drift(board.repeat(2, 2).repeat(2, 3), flat).mse[0] == pytest.approx(
        0.5 / 3 / 127.5**2, rel=1e-12
    )


BIG = np.full((20, 3), 1e70) * np.arange(1, 21)[:, None]
X = np.random.default_rng(2).normal(size=(20, 3))


@pytest.mark.parametrize(
    ("call", "wanted"),
    [
        (lambda: kernel_distance(BIG, -BIG), "beyond all numbers"),
        (lambda: kernel_distance_of_subsets(BIG, -BIG, 2, 5), "beyond all numbers"),
        (lambda: manifold_scores(BIG * 1e60, BIG * 1e60), "reach 2e\\+131"),
        (lambda: feature_moments(X.astype(object)), "type object; give them as float32"),
        (lambda: squared_radii(X.astype(complex), 2), "type complex128"),
        (lambda: kernel_distance(X > 0, X), "type bool"),
        (lambda: gaussian_mmd(cast(Any, [[1.0], [1.0, 2.0]]), X), "no plain array of numbers"),
        (lambda: squared_radii(X, 0), "no neighbour number 0"),
        (lambda: manifold_scores(X, X, -1), "no neighbour number -1"),
        (lambda: manifold_scores(X, X[:0]), "a non-empty"),
        (lambda: kernel_distance_of_subsets(X, X, 0, 5), "0 subsets of 5 cannot be drawn"),
        (lambda: gaussian_mmd(X, X, 0), "no width of 0"),
        (lambda: gaussian_mmd(X, X, float("nan")), "no width of nan"),
        (lambda: inception_score(np.full((6, 2), 0.5), 0), "cannot fill 0 splits"),
        (lambda: inception_score(np.full((6, 2), 0.7), 2), "do not sum to 1"),
        (lambda: normality(np.ones((4, 1, 2, 2))), "without any spread"),
        (lambda: normality(np.full((4, 1, 2, 2), np.nan)), "latents hold NaN"),
        (lambda: drift(np.zeros((2, 3, 8, 8), "u1"), np.zeros((1, 3, 4, 4), "u1")), "a drift of 2"),
        (lambda: high_frequency_energy(np.zeros((2, 1, 8, 8), "u1")), "the images have 1"),
        (lambda: frechet_infinity(feature_moments(X), X, 0), "do not make a line"),
    ],
)  # fmt: skip
def test_trouble_is_one_line(call: Any, wanted: str) -> None:
    with pytest.raises(PagodaError, match=wanted) as raised:
        call()
    assert "\n" not in str(raised.value)


def test_the_types_of_other_packages_are_named() -> None:
    """Torch's bfloat16 has no numpy type at all."""
    import torch

    with pytest.raises(PagodaError, match="features are no plain array of numbers"):
        kernel_distance(torch.zeros(4, 2, dtype=torch.bfloat16), X)  # type: ignore[arg-type]
