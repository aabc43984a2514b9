"""Intervals over samples.

An interval over samples says how far the number would move with other samples of the same
generator, at the same n, reference and network. It says nothing of the bias of a distance at
finite n (:mod:`pagoda.evaluation.metrics.fd_infinity` does), nor of other training runs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtri, stdtrit

from pagoda.errors import PagodaError

GROUPS = 20
"""Groups of the jackknife: Student's factor is 2.09 then, where infinitely many have 1.96."""


@dataclass(frozen=True)
class Interval:
    """An estimate, the ends of its interval, its nominal level, and how the ends were found."""

    value: float
    low: float
    high: float
    level: float
    method: str

    def __str__(self) -> str:
        return f"{self.method}_{self.level * 100:g}"

    def within(self, least: float, most: float = np.inf) -> Interval:
        """The part of it where the number can be: no less is held by it, and no share is above 1.

        The number itself stays inside: a value beyond the bounds by rounding widens them.
        """
        low, high = max(self.low, min(least, self.value)), min(self.high, max(most, self.value))
        return replace(self, low=low, high=high)


def mean_interval(values: np.ndarray, level: float = 0.95, method: str = "student") -> Interval:
    """Student's interval of a mean over samples ``(n,)``, such as density or PSNR.

    m +- t(n - 1) s / sqrt(n): exact for normal values at any n, and as n grows for every other.

    Raises:
        PagodaError: for fewer than 2 values, or NaN or infinity among them.
    """
    values = _checked(values)
    half = stdtrit(len(values) - 1, (1 + level) / 2) * values.std(ddof=1) / np.sqrt(len(values))
    mean = float(values.mean())
    return Interval(mean, mean - float(half), mean + float(half), level, method)


def fraction_interval(
    values: np.ndarray, level: float = 0.95, worth: float | None = None
) -> Interval:
    """Wilson's interval of a fraction p of samples (1927, eq. 9), such as precision or accuracy.

    (p + z^2 / 2n +- z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n): never empty, never beyond
    0 and 1, also where all samples agree.

    Args:
        values: (n,) yes or no of each sample.
        level: of the interval.
        worth: how many independent samples these are worth, if not n.

    Raises:
        PagodaError: for fewer than 2 values.
    """
    values = _checked(values)
    n, p, z = worth or len(values), float(values.mean()), float(ndtri((1 + level) / 2))
    centre = p + z * z / (2 * n)
    half = z * np.sqrt(p * (1 - p) / n + (z / (2 * n)) ** 2)
    low, high = ((centre + sign * half) / (1 + z * z / n) for sign in (-1, 1))
    # rounding must not leave [0, 1], nor a fraction of exactly 0 or 1 outside
    low, high = max(0.0, min(float(low), p)), min(1.0, max(float(high), p))
    return Interval(p, low, high, level, "wilson")


def leave_groups_out(
    statistic: Callable[[np.ndarray], np.ndarray], n: int, groups: int = GROUPS, seed: int = 0
) -> np.ndarray:
    """``statistic`` of all samples but one group of n / groups at a time, (groups, ...).

    It takes the rows of the samples that are kept, ascending. Groups are drawn at random, since
    files are often sorted by class.

    Raises:
        PagodaError: with fewer samples than groups.
    """
    if n < groups:
        raise PagodaError(f"{n} samples make no {groups} groups for an interval; use more")
    group = np.random.default_rng(seed).permutation(n) % groups
    return np.stack([statistic(np.flatnonzero(group != g)) for g in range(groups)])


def jackknife_interval(value: float, left_out: np.ndarray, level: float = 0.95) -> Interval:
    """Interval of a number that is no mean over samples, such as recall and coverage.

    Every generated image can change which real ones are recalled, so a resampling of the real ones
    says little of other generated ones. With the G estimates of :func:`leave_groups_out`::

        se^2 = (G - 1) / G sum_g (estimate_g - mean)^2,   value +- t(G - 1) se

    The jackknife's variance is too large on average (Efron and Stein 1981), so the interval is
    conservative: it holds the expected value at least as often as it says.
    """
    groups = len(left_out)
    error = np.sqrt((groups - 1) * np.var(left_out))
    half = float(stdtrit(groups - 1, (1 + level) / 2) * error)
    return Interval(value, value - half, value + half, level, "jackknife")


def _checked(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise PagodaError("an interval needs 2 or more finite values, one a sample")
    return values
