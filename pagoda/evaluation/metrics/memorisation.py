"""Memorisation: are generated images nearer to training images than to held-out ones?

Of the nearest real neighbours of m generated points, among equally many training and held-out
points, count those that are training points, a tie as one half::

    share = 1/m sum_i ( [t_i < h_i] + [t_i = h_i] / 2 ),   t_i, h_i: distance to the nearest of each

Points drawn from the data's distribution give 1/2, copies of the training set 1. Less than 1/2 says
that the generator's points lie away from the training set. It is a simplified form of the test of
Meehan, Chaudhuri and Dasgupta (2020, "A non-parametric test to detect data-copying in generative
models"), who rank distances to the training set of generated against held-out points, cell by cell
of the space; here there is one cell and no rank statistic.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.precision_recall import nearest_squared


@dataclass(frozen=True)
class TrainShare:
    """Share of generated points whose nearest real point is a training point.

    Attributes:
        value: the share; 0.5 without memorisation, 1 for copies.
        deviation: standard error of a share, ``sqrt(p (1 - p) / m)``, given the real points.
        n: generated points.
        real: training points, and as many held-out points.
    """

    value: float
    deviation: float
    n: int
    real: int


def train_share(
    generated: np.ndarray,
    train: np.ndarray,
    held_out: np.ndarray,
    seed: int = 0,
    device: str | None = None,
) -> TrainShare:
    """Share of generated features ``(m, d)`` that are nearer to training than to held-out features.

    The larger real set is cut to a fixed random subset as large as the smaller: with more points a
    set would be nearer to everything.

    Args:
        generated: features of generated images.
        train, held_out: features of real images that the generator has seen, and has not.
        seed: of the subset.
        device: where torch does the arithmetic; None for numpy.

    Raises:
        PagodaError: if dimensions disagree, a set is empty, or anything is not finite.
    """
    real = min(len(train), len(held_out))
    if not real or not len(generated):
        raise PagodaError("a share of training images needs generated, train and held-out images")
    sets = [_subset(features, real, seed) for features in (train, held_out)]
    t, h = nearest_squared(generated, sets, device)
    value = float(np.mean(np.where(t == h, 0.5, t < h)))
    deviation = float(np.sqrt(value * (1 - value) / len(generated)))
    return TrainShare(value, deviation, len(generated), real)


def _subset(features: np.ndarray, n: int, seed: int) -> np.ndarray:
    if len(features) == n:
        return features
    return features[np.sort(np.random.default_rng(seed).permutation(len(features))[:n])]
