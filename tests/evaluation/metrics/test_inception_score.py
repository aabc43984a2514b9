"""The classifier score against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.inception_score import inception_score, probabilities_of


def test_undecided_predictions_score_one() -> None:
    mean, deviation = inception_score(np.full((100, 7), 1 / 7))
    assert mean == pytest.approx(1, rel=1e-14) and deviation == pytest.approx(0, abs=1e-14)
    assert inception_score(np.tile([0.9, 0.1], (40, 1)), 4)[0] == pytest.approx(1, rel=1e-14)


def test_certain_and_balanced_predictions_score_the_number_of_classes() -> None:
    sure = np.eye(5)[np.arange(100) % 5]
    assert inception_score(sure, 10)[0] == pytest.approx(5, rel=1e-14)


def test_certain_and_unbalanced_predictions_score_exp_of_the_entropy() -> None:
    fractions = np.array([0.5, 0.3, 0.2])
    sure = np.eye(3)[np.repeat(np.arange(3), [50, 30, 20])]
    expected = np.exp(-np.sum(fractions * np.log(fractions)))
    assert inception_score(sure, 1)[0] == pytest.approx(expected, rel=1e-13)


def test_two_mirrored_predictions() -> None:
    """p = (a, 1-a) and its mirror image: ln 2 minus the entropy of p."""
    a = 0.85
    rows = np.tile([[a, 1 - a], [1 - a, a]], (30, 1))
    entropy = -(a * np.log(a) + (1 - a) * np.log(1 - a))
    assert inception_score(rows, 3)[0] == pytest.approx(2 * np.exp(-entropy), rel=1e-13)


def test_consecutive_splits_see_the_order_and_shuffled_ones_do_not() -> None:
    by_class = np.eye(4)[np.repeat(np.arange(4), 500)]
    assert inception_score(by_class, 4)[0] == pytest.approx(1)  # one class a split
    shuffled, spread = inception_score(by_class, 4, shuffle_seed=2020)
    assert 3.9 < shuffled <= 4 and 0 < spread < 0.1
    assert inception_score(by_class, 4, shuffle_seed=2020)[0] == shuffled


def test_splits_cover_every_row_once() -> None:
    """10 rows in 3 splits, 3 + 3 + 4: mean and spread of the three scores."""
    rows = np.eye(2)[[0, 0, 0, 0, 0, 1, 0, 1, 0, 1]]
    h = -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))
    scores = [1.0, np.exp(h), 2.0]
    mean, deviation = inception_score(rows, 3)
    assert mean == pytest.approx(np.mean(scores)) and deviation == pytest.approx(np.std(scores))


def test_probabilities_of_logits() -> None:
    logits = np.array([[0.0, np.log(3)], [1000.0, 1000.0], [-1e4, 0.0]], np.float64)
    np.testing.assert_allclose(
        probabilities_of(logits), [[0.25, 0.75], [0.5, 0.5], [0.0, 1.0]], rtol=1e-14
    )


def test_trouble_is_one_line() -> None:
    with pytest.raises(PagodaError, match="4 samples cannot fill 10 splits"):
        inception_score(np.eye(4), 10)
    with pytest.raises(PagodaError, match="apply a softmax"):
        inception_score(np.array([[-1.0, 2.0]]), 1)
    with pytest.raises(PagodaError, match="logits hold NaN"):
        probabilities_of(np.array([[np.nan, 0.0]]))
