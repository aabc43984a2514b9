"""Memorisation: are generated images nearer to training images than to held-out ones?

Of the nearest real neighbours of m generated points, among equally many training and held-out
points, count those that are training points, a tie as one half::

    p = 1/m sum_i ( [t_i < h_i] + [t_i = h_i] / 2 ),   t_i, h_i: distance to the nearest of each

Points drawn from the data's distribution give 1/2, copies of the training set 1. Less than 1/2 says
that the generator's points lie away from the training set. It is a simplified form of the test of
Meehan, Chaudhuri and Dasgupta (2020, "A non-parametric test to detect data-copying in generative
models"), who rank distances to the training set of generated against held-out points, cell by cell
of the space; here there is one cell and no rank statistic. Its rows are called ``train_share``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.base import Comparison, Metric
from pagoda.evaluation.metrics.precision_recall import nearest_squared
from pagoda.rows import Row


@dataclass(frozen=True)
class TrainFraction:
    """Fraction of ``n`` generated points whose nearest real point, of ``real`` training and as many
    held-out points, is a training point; and its standard error ``sqrt(p (1 - p) / n)``.
    """

    value: float
    deviation: float
    n: int
    real: int


def train_fraction(
    generated: np.ndarray,
    train: np.ndarray,
    held_out: np.ndarray,
    seed: int = 0,
    device: str | None = None,
) -> TrainFraction:
    """Fraction of generated features ``(m, d)`` nearer to training than to held-out features.

    The larger real set is cut to a fixed random subset as large as the smaller: with more points a
    set would be nearer to everything.

    Raises:
        PagodaError: if dimensions disagree, a set is empty, or anything is not finite.
    """
    real = min(len(train), len(held_out))
    if not real or not len(generated):
        raise PagodaError(
            "a fraction of training images needs generated, train and held-out images"
        )
    sets = [
        f if len(f) == real else f[np.sort(np.random.default_rng(seed).permutation(len(f))[:real])]
        for f in (train, held_out)
    ]
    t, h = nearest_squared(generated, sets, device)
    value = float(np.mean(np.where(t == h, 0.5, t < h)))
    deviation = float(np.sqrt(value * (1 - value) / len(generated)))
    return TrainFraction(value, deviation, len(generated), real)


def _train_fraction(c: Comparison) -> Row:
    train, held_out = c.real.kept, c.other.features
    if c.real.split == "test":
        train, held_out = held_out, train
    found = train_fraction(c.made.features, train, held_out, device=c.device)
    return c.row("train_share", found.value, found.real, m=found.real)


TRAIN_FRACTION = Metric(
    "train_share", {"train_share": "Nearer to training images (0.5: no copies)"}, _train_fraction,
    ("features", "real", "held_out"), "", pipeline="any", place=9,
)  # fmt: skip
