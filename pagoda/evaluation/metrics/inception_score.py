"""Inception Score and its like: exp of the mean KL from each prediction to the average one.

    IS = exp( E_x KL( p(y|x) || p(y) ) ),   p(y) = E_x p(y|x)

(Salimans et al. 2016.) It is called Inception Score only with Inception's predictions; with
another classifier it is a classifier score. Two conventions are in use:

- ADM's evaluator cuts the samples as they come into consecutive splits of equal size and reports
  the mean: ``shuffle_seed=None``. If samples are sorted by class this is a trap.
- torch-fidelity and most papers shuffle first (seed 2020 there) and report mean and standard
  deviation over 10 splits.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.base import Comparison, Metric, Sample, Settings
from pagoda.evaluation.metrics.statistics import check_features
from pagoda.rows import Row

_SHUFFLE_SEED = 2020  # sources may be sorted by class
_ADM_SPLIT = 5000  # images a split in ADM's evaluator
_SUM = 1e-2  # half-precision probabilities of many classes sum to 1 within this


def probabilities_of(logits: np.ndarray) -> np.ndarray:
    """Softmax over the last axis of ``(n, classes)`` in float64."""
    logits = check_features(logits, "logits").astype(np.float64)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def inception_score(
    probabilities: np.ndarray, splits: int = 10, shuffle_seed: int | None = None
) -> tuple[float, float]:
    """Mean and standard deviation (ddof 0) of the score over ``splits`` parts of the samples.

    Split i of predictions ``(n, classes)`` holds rows ``i n // splits`` to ``(i + 1) n // splits``,
    after a permutation of the rows if there is a ``shuffle_seed``.

    Raises:
        PagodaError: with fewer rows than splits, no split, or rows that are no probabilities.
    """
    rows = check_features(probabilities, "probabilities").astype(np.float64)
    if not 1 <= splits <= len(rows):
        raise PagodaError(
            f"{len(rows)} samples cannot fill {splits} splits; use fewer splits, 1 or more"
        )
    if rows.min() < 0 or np.abs(rows.sum(axis=1) - 1).max() > _SUM:
        raise PagodaError(
            "probabilities are negative or do not sum to 1; apply a softmax to the logits first"
        )
    if shuffle_seed is not None:
        rows = rows[np.random.RandomState(shuffle_seed).permutation(len(rows))]
    cuts = [i * len(rows) // splits for i in range(splits + 1)]
    scores = [_score(rows[a:b]) for a, b in pairwise(cuts)]
    return float(np.mean(scores)), float(np.std(scores))


def _score(rows: np.ndarray) -> float:
    average = np.broadcast_to(rows.mean(axis=0), rows.shape)
    seen = (rows > 0) & (average > 0)  # lim p log p = 0; a mean of the least numbers can be 0
    divergence = np.zeros_like(rows)
    divergence[seen] = rows[seen] * (np.log(rows[seen]) - np.log(average[seen]))
    return float(np.exp(divergence.sum(axis=1).mean()))


def _measure(c: Comparison, names: tuple[str, str], splits: int, shuffle_seed: int | None) -> Row:
    value, sd = inception_score(probabilities_of(c.logits), splits, shuffle_seed)
    return c.row(
        "inception_score" if c.inception else "classifier_score", value, c.real.n, *names,
        sd=sd if splits > 1 else None, s=splits,
    )  # fmt: skip


def _check(n: int, real: Sample, settings: Settings) -> None:
    if not 1 <= settings.splits <= n:
        raise PagodaError(f"{n} images cannot fill {settings.splits} splits; change --splits")


SCORE = Metric(
    "score", {"inception_score": "Inception score", "classifier_score": "Classifier score"},
    lambda c: _measure(c, ("is", "score"), c.settings.splits, _SHUFFLE_SEED), ("logits",), "higher",
    alias="is", pipeline="any", place=3, check=_check,
)  # fmt: skip
# As ADM's evaluator: parts of 5,000 in the order of the images; in rows it is SCORE's metric.
SCORE_ADM = Metric(
    "score_adm", {},
    lambda c: _measure(c, ("is_adm", "score_adm"), max(1, c.n // _ADM_SPLIT), None), ("logits",),
    "higher", alias="is_adm", pipeline="inception", place=4,
)  # fmt: skip
