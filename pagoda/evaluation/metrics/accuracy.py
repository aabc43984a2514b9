"""Class accuracy: the fraction of images whose class, to the network, is the one asked for."""

from __future__ import annotations

import numpy as np

from pagoda.errors import PagodaError
from pagoda.evaluation.metrics.base import Comparison, Metric
from pagoda.evaluation.metrics.intervals import fraction_interval
from pagoda.rows import Row


def _correct(c: Comparison) -> np.ndarray:
    if c.made.labels is None:
        raise PagodaError("class accuracy needs the class of every image; leave it out")
    logits = c.logits if c.made.columns is None else c.logits[:, c.made.columns]
    return np.asarray(logits.argmax(axis=1) == c.made.labels)


def _accuracy(c: Comparison) -> Row:
    return c.row("class_accuracy", float(np.mean(c.once(_correct))), c.real.n, "accuracy")


ACCURACY = Metric(
    "accuracy", {"class_accuracy": "Class accuracy"}, _accuracy, ("logits", "labels"), "higher",
    pipeline="any", place=7,
    interval=lambda c, value: fraction_interval(c.once(_correct)),
)  # fmt: skip
