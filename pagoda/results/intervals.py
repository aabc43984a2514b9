"""Intervals over training seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean and its two-sided interval; infinite from one value."""

    mean: float
    low: float
    high: float
    n: int


def t_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Student's interval of a mean: m ± t(n − 1) s / √n, s with n − 1 in the denominator.

    Args:
        values: one a seed, at least one.
        confidence: probability that the interval covers the mean of a normal law.
    """
    n = len(values)
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, -math.inf, math.inf, 1)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (n - 1) / n)
    half = float(stdtrit(n - 1, 0.5 + confidence / 2)) * spread
    return Interval(mean, mean - half, mean + half, n)
