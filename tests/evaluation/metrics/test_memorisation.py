"""The fraction of generated images that lie nearest to a training image."""

from __future__ import annotations

import numpy as np
import pytest

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics import distances
from pagoda.evaluation.metrics.memorisation import train_fraction


def points(n: int, seed: int, dim: int = 6, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(dtype)


def test_on_a_line_by_hand() -> None:
    """Distances (0.4, 0.6), (0.1, 0.9), (0.5, 0.5), (2, 1): fractions 1, 1, a half and 0."""
    train, held_out = np.array([[0.0]]), np.array([[1.0]])
    found = train_fraction(np.array([[0.4], [0.1], [0.5], [2.0]]), train, held_out)
    assert found.value == 2.5 / 4 and (found.n, found.real) == (4, 1)
    assert found.deviation == pytest.approx(np.sqrt(0.625 * 0.375 / 4))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_copies_of_either_set(dtype: str) -> None:
    train, held_out = points(50, 0, dtype=dtype), points(50, 1, dtype=dtype)
    assert train_fraction(train[:20], train, held_out).value == 1
    assert train_fraction(held_out, train, held_out).value == 0
    assert train_fraction(train, train, held_out).deviation == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_an_image_in_both_sets_counts_half(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal sets in another order: all ties, though tiles and so rounding differ."""
    monkeypatch.setattr(distances, "_TILE", 7)
    train = points(40, 0, 300, dtype) + 50
    held_out = train[np.random.default_rng(1).permutation(40)]
    assert train_fraction(points(30, 2, 300, dtype) + 50, train, held_out).value == 0.5
    assert train_fraction(train, train, held_out).value == 0.5


def test_fresh_points_give_a_half_within_the_error() -> None:
    """Real points are drawn anew, so the spread over draws is above the binomial error given."""
    fractions = [
        train_fraction(points(200, 3 * i), points(300, 3 * i + 1), points(300, 3 * i + 2)).value
        for i in range(60)
    ]
    assert abs(np.mean(fractions) - 0.5) < 4 * np.std(fractions, ddof=1) / np.sqrt(60)


def test_a_mixture_of_copies() -> None:
    """A fraction c of copies: c + (1 - c) / 2."""
    train, held_out = points(2000, 0), points(2000, 1)
    generated = np.concatenate([train[:600], points(1400, 2)])
    found = train_fraction(generated, train, held_out)
    assert found.value == pytest.approx(0.65, abs=4 * found.deviation)


def test_sets_of_another_size_are_cut_to_one() -> None:
    """Ten times the training images are nearer to everything, unless they are cut."""
    train, held_out, fresh = points(3000, 0), points(300, 1), points(2000, 2)
    found = train_fraction(fresh, train, held_out)
    assert found.real == 300 and found.value == pytest.approx(0.5, abs=0.06)
    assert train_fraction(fresh, train, held_out, seed=1).value != found.value
    assert train_fraction(fresh, train, held_out) == found
    assert train_fraction(fresh, held_out, train).value == pytest.approx(1 - found.value)


def test_equals_all_distances_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distances, "_TILE", 16)
    generated, train, held_out = points(50, 0), points(40, 1), points(40, 2) + 0.1
    near = [((generated[:, None] - s[None]) ** 2).sum(-1).min(1) for s in (train, held_out)]
    assert train_fraction(generated, train, held_out).value == np.mean(near[0] < near[1])
    assert train_fraction(generated, train, held_out, device="cpu").value == np.mean(
        near[0] < near[1]
    )


def test_trouble_is_one_line() -> None:
    x = points(5, 0)
    with pytest.raises(PagodaError, match="different dimensions"):
        train_fraction(x, x, x[:, :2])
    with pytest.raises(PagodaError, match="needs generated, train and held-out"):
        train_fraction(x, x[:0], x)
    with pytest.raises(PagodaError, match="NaN"):
        train_fraction(x, x, x + np.nan)
